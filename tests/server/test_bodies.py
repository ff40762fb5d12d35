"""Memory for bodies, and bodies that arrive slowly."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.datastructures import Headers

from phototag.server import bodies
from phototag.server.bodies import JSON, Memory, RequestError, find_cells, read_body
from tests.serving.test_pyfunc import BODIES


def run_alone(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine in a thread: in the main thread, Playwright may have a running loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


@pytest.mark.parametrize("body", BODIES)
def test_photos_are_found_in_every_request_format(body: str) -> None:
    import json

    found = find_cells(json.dumps(BODIES[body](["a", "b"])).encode(), JSON, Headers())
    flat = [value for cell in found for value in (cell if isinstance(cell, list) else [cell])]
    assert flat == ["a", "b"]


def test_memory_is_never_exceeded_and_requests_wait_in_order() -> None:
    memory, order, held = Memory(100), [], [0]

    async def use(name: str, num_bytes: int) -> None:
        async with memory.reserve(num_bytes):
            order.append(name)
            held.append(held[-1] + min(num_bytes, 100))
            await asyncio.sleep(0)
            held.append(held[-1] - min(num_bytes, 100))

    async def run() -> None:
        waiting = asyncio.create_task(use("a", 60))
        await asyncio.sleep(0)
        # The largest request is served alone, although it needs more than there is.
        names = {"b": 30, "c": 500, "d": 10, "e": 50}
        tasks = [asyncio.create_task(use(*item)) for item in names.items()]
        await asyncio.sleep(0)
        gone = asyncio.create_task(use("gone", 70))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(waiting, *tasks, gone, return_exceptions=True)

    run_alone(asyncio.wait_for(run(), 60))
    assert order == ["a", "b", "c", "d", "e"]
    assert max(held) <= 100
    assert memory.free == 100


class SlowRequest:
    """A request whose client sends some chunks and then nothing."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = chunks

    async def stream(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("chunks", "length", "status"),
    [((b"a", b"b"), 100, 408), ((), 10, 408), ((b"abc", b"abc"), 5, 413)],
)
def test_body_that_is_too_slow_or_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, chunks: tuple[bytes, ...], length: int, status: int
) -> None:
    monkeypatch.setattr(bodies, "GRACE", 0.01)
    request: Any = SlowRequest(*chunks)
    with pytest.raises(RequestError) as caught:
        run_alone(read_body(request, length))
    assert caught.value.status == status
