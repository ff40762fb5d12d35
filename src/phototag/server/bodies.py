"""Bodies of requests: reading them with a bounded use of memory, and finding the photos in them."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from phototag.base.errors import InputError
from phototag.serving.limits import MAX_BYTES, MAX_REQUEST_BYTES, MAX_ROWS, TOO_LARGE

JSON, MULTIPART = "application/json", "multipart/form-data"
RAW = ("application/octet-stream", "image/")  # media types, or the part of them before the slash
# Base64 has 4/3 of the size, plus any line breaks.
MAX_BODY = {JSON: MAX_REQUEST_BYTES * 3 // 2, MULTIPART: MAX_REQUEST_BYTES + 2**20}
COPIES = {JSON: 4, MULTIPART: 3}  # bytes of memory per byte of a body until its response is sent
SMALL_BODY = 2**18  # bytes; smaller bodies do not wait for memory
MEMORY = 2**28  # bytes for all bodies that are not small; the largest body is handled alone
GRACE, BYTES_PER_SECOND = 10, 2**19  # a body that arrives later than this is refused
UNREADABLE = "the JSON cannot be read: send an object without deep nesting and long numbers"
EXPECTED = (
    'send {"inputs": ["<base64 of a photo>", ...]} or another JSON format of MLflow with the '
    "column `image`"
)


class RequestError(InputError):
    """Error that is sent to the client with an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Memory:
    """Memory for request bodies, in bytes. Requests that need more than is free wait in a queue."""

    def __init__(self, num_bytes: int = MEMORY) -> None:
        self.free, self.total = num_bytes, num_bytes
        self.queue, self.released = asyncio.Lock(), asyncio.Event()

    @asynccontextmanager
    async def reserve(self, num_bytes: int) -> AsyncIterator[None]:
        """Hold memory during the block; wait until enough is free."""
        num_bytes = min(num_bytes, self.total)
        async with self.queue:
            while self.free < num_bytes:
                self.released.clear()
                await self.released.wait()
            self.free -= num_bytes
        try:
            yield
        finally:
            self.free += num_bytes
            self.released.set()


def find_kind(headers: Mapping[str, str]) -> str:
    """Return the media type of a request; all types of single photo files are the same.

    Raises:
        RequestError: The media type is not supported.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in (JSON, MULTIPART):
        return kind
    if kind.startswith(RAW):
        return RAW[0]
    raise RequestError(
        415,
        f"the content type is {kind[:100] or 'missing'}: send a photo as {RAW[0]} or image/*, "
        f"photos as {MULTIPART}, or {JSON}",
    )


def measure_body(headers: Mapping[str, str], kind: str) -> int:
    """Return the declared length of a body, or the largest length that is permitted.

    Raises:
        RequestError: The declared length is over the limit.
    """
    limit = MAX_BODY.get(kind, MAX_BYTES)
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large(limit)
    return int(length) if length.isdecimal() else limit


def _too_large(limit: int) -> RequestError:
    if limit == MAX_BYTES:
        return RequestError(413, f"{TOO_LARGE}: send a smaller file")
    return RequestError(413, f"the body is larger than {limit // 2**20} MiB: send fewer photos")


async def read_body(request: Request, length: int) -> bytes:
    """Return the body of a request, of at most `length` bytes.

    Raises:
        RequestError: The body is too long, or arrives too slowly.
        ClientDisconnect: The client closed the connection.
    """
    body = bytearray()
    end = asyncio.get_running_loop().time() + GRACE
    try:
        async with asyncio.timeout_at(end) as limit:
            async for chunk in request.stream():
                body += chunk
                if len(body) > length:
                    raise _too_large(length)
                limit.reschedule(end + len(body) / BYTES_PER_SECOND)
    except TimeoutError:
        raise RequestError(408, "the body arrives too slowly: send it again") from None
    return bytes(body)


async def discard_body(request: Request) -> None:
    """Read the rest of a body that is refused; otherwise, clients would not see the response."""
    # A RuntimeError is raised if the body has been read.
    with suppress(TimeoutError, ClientDisconnect, RuntimeError):
        async with asyncio.timeout(GRACE):
            async for _ in request.stream():
                pass


def find_cells(body: bytes, kind: str, headers: Headers) -> list[Any]:
    """Return the photos in a body: bytes, or cells of a JSON request.

    Raises:
        RequestError: The body is not valid.
    """
    if kind == JSON:
        return _parse_json(body)
    if kind == MULTIPART:
        return _parse_multipart(body, headers)
    return [body]


def _parse_json(body: bytes) -> list[Any]:
    """Return the cells of the column `image`, in any of MLflow's formats."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, UNREADABLE) from None
    formats = ("dataframe_split", "dataframe_records", "inputs", "instances")
    found = [name for name in formats if isinstance(request, dict) and name in request]
    if len(found) != 1:
        raise RequestError(400, f"the JSON has {len(found)} of the keys {formats}: {EXPECTED}")
    rows = request[found[0]]
    try:
        if found[0] == "dataframe_split":
            column = rows["columns"].index("image")
            return [row[column] for row in rows["data"]]
        if isinstance(rows, dict):
            rows = rows["image"]
            return rows if isinstance(rows, list) else [rows]
        if not isinstance(rows, list):
            raise TypeError
        return [row["image"] if isinstance(row, dict) else row for row in rows]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise RequestError(400, f"{found[0]} has no column `image`: {EXPECTED}") from None


class _Parser(MultiPartParser):
    """Parser that keeps files in memory; the default writes them to the disk."""

    spool_max_size = MAX_BODY[MULTIPART]


def _parse_multipart(body: bytes, headers: Headers) -> list[bytes]:
    async def stream() -> AsyncGenerator[bytes]:
        view = memoryview(body)
        for start in range(0, len(body), 2**16):
            yield bytes(view[start : start + 2**16])

    async def parse() -> list[bytes]:
        form = await _Parser(headers, stream(), max_files=MAX_ROWS, max_fields=0).parse()
        return [file.file.read() for _, file in form.multi_items() if not isinstance(file, str)]

    try:
        return asyncio.run(parse())
    except (MultiPartException, FormParserError, KeyError, UnicodeError) as error:
        reason = getattr(error, "message", "") or str(error)
        raise RequestError(
            400, f"the form cannot be read ({reason[:200]}): send each photo as a file"
        ) from None
