"""HTTP API of the served model: routes, token, limits and errors."""

import asyncio
import secrets
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from phototag.base.errors import InputError
from phototag.server.bodies import (
    COPIES,
    JSON,
    MULTIPART,
    RAW,
    SMALL_BODY,
    Memory,
    RequestError,
    discard_body,
    find_cells,
    find_kind,
    measure_body,
    read_body,
)
from phototag.server.champion import Champion
from phototag.server.log import PredictionLog
from phototag.server.metrics import IN_FLIGHT, LABELS, LOG_ERRORS, PHOTOS, REQUESTS, UNFAMILIAR
from phototag.serving.limits import MAX_MESSAGE, is_unfamiliar
from phototag.serving.requests import list_predictions, read_cells, read_root, tag_request
from phototag.serving.tagger import Tags

MAX_IN_FLIGHT = 256  # requests; further requests are refused
THREADS = 32  # requests whose photos are decoded and whose labels are predicted at a time
CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    404: "ENDPOINT_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


class Prediction(BaseModel):
    """Prediction for one photo."""

    labels: list[str]
    scores: dict[str, float]
    error: str | None
    familiarity: float | None


class Model(BaseModel):
    """Served version."""

    name: str
    version: str


class Predictions(BaseModel):
    """Predictions for the photos of a request, in the order of the request."""

    model: Model
    predictions: list[Prediction]


class Failure(BaseModel):
    """Reason why a request failed."""

    error_code: str
    message: str


BODY = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        RAW[0]: {"schema": {"type": "string", "format": "binary"}},
        MULTIPART: {
            "schema": {
                "type": "object",
                "properties": {
                    "photo": {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        JSON: {
            "schema": {
                "type": "object",
                "properties": {"inputs": {"type": "array", "items": {"type": "string"}}},
            },
        },
    },
}


class Service:
    """State of the server that its requests share.

    Attributes:
        champion: Version to serve.
        log: Log of the served photos, or None.
        token: Token that clients must send, or an empty string.
    """

    def __init__(
        self, champion: Champion, log: PredictionLog | None = None, token: str = ""
    ) -> None:
        self.champion, self.log, self.token = champion, log, token.encode()
        self.root = read_root()
        self.memory = Memory()
        self.num_requests = 0
        self.threads = ThreadPoolExecutor(THREADS, "request")

    def check_token(self, request: Request) -> None:
        """Raise a RequestError if a token is required and the request does not have it."""
        if not self.token:
            return
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        # The comparison takes the same time for all tokens of a length.
        if scheme.lower() != "bearer" or not secrets.compare_digest(sent.encode(), self.token):
            raise RequestError(
                401, "the token is missing or wrong: send Authorization: Bearer TOKEN"
            )

    async def predict(self, request: Request) -> dict[str, Any]:
        """Return the predictions for the photos in the body of a request."""
        self.check_token(request)
        kind = find_kind(request.headers)
        length = measure_body(request.headers, kind)
        if self.num_requests >= MAX_IN_FLIGHT:
            raise RequestError(503, "too many requests at a time: send this one again later")
        self.num_requests += 1
        try:
            if length <= SMALL_BODY:
                return await self._predict(request, kind, length)
            async with self.memory.reserve(length * COPIES.get(kind, 3)):
                return await self._predict(request, kind, length)
        finally:
            self.num_requests -= 1

    async def _predict(self, request: Request, kind: str, length: int) -> dict[str, Any]:
        body = await read_body(request, length)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, self._tag, body, kind, request.headers)

    def _tag(self, body: bytes, kind: str, headers: Any) -> dict[str, Any]:
        version = self.champion.version  # the same for the whole request
        photos = read_cells(find_cells(body, kind, headers), self.root)
        tags = tag_request(version.tagger, photos)
        _count(tags)
        if self.log:
            try:
                self.log.write(version.name, version.number, photos, tags)
            except (OSError, InputError) as error:  # a full disk does not stop the server
                LOG_ERRORS.inc()
                print(f"{self.log.folder}: not logged: {error}", file=sys.stderr)
        return {
            "model": {"name": version.name, "version": version.number},
            "predictions": list_predictions(tags),
        }


def _count(tags: list[Tags]) -> None:
    for tag in tags:
        PHOTOS.labels("error" if tag.error else "ok").inc()
        if is_unfamiliar(tag.familiarity):
            UNFAMILIAR.inc()
        for label in tag.labels:
            LABELS.labels(label).inc()


def build_app(service: Service) -> FastAPI:
    """Return the application with all routes."""
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": Failure} for status in (400, 401, 408, 413, 415, 500, 503)
    }
    app = FastAPI(
        title="phototag",
        description="Predicts labels of photos.",
        redoc_url=None,
    )

    async def predict(request: Request) -> Response:
        """Predict the labels of one photo (raw bytes) or of several (multipart form, JSON)."""
        start = time.perf_counter()
        with IN_FLIGHT.track_inprogress():
            try:
                response: Response = JSONResponse(await service.predict(request))
            except InputError as error:
                await discard_body(request)
                response = refuse(request, error)
            except ClientDisconnect:
                response = respond(400, "the connection was closed")
            except Exception:
                traceback.print_exc()
                response = respond(500, "the server failed: its log has the reason")
        REQUESTS.labels(response.status_code).observe(time.perf_counter() - start)
        return response

    for path, note in (
        ("/predict", ""),
        ("/invocations", "The same as /predict, for MLflow clients."),
    ):
        app.post(
            path,
            description=note or None,
            operation_id=path[1:],
            response_model=Predictions,
            responses=failures,
            openapi_extra={"requestBody": BODY},
        )(predict)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Return whether the server runs."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Return the served version; the server does not listen before the version is loaded."""
        return {
            "status": "ok",
            "model": service.champion.name,
            "version": service.champion.version.number,
        }

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Return the metrics for Prometheus."""
        service.check_token(request)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    def refuse(_: Request, error: Exception) -> Response:
        return respond(getattr(error, "status", 400), str(error))

    def refuse_path(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        return respond(
            status, f"{request.method} {request.url.path[:100]} is not served: see /docs"
        )

    app.add_exception_handler(InputError, refuse)
    app.add_exception_handler(HTTPException, refuse_path)
    return app


def respond(status: int, message: str) -> Response:
    """Return an error in the style of MLflow's server."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status)
    body = {"error_code": CODES.get(status, CODES[400]), "message": message[:MAX_MESSAGE]}
    return JSONResponse(body, status, headers)
