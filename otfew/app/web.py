"""The page's requests, each handed to the session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from otfew.app.guard import App, Guard
from otfew.app.limits import LimitError
from otfew.app.session import MODEL, Session
from otfew.errors import UserError

T = TypeVar("T")

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
"""Path -> file in the package, and its kind. No other file is ever read for a request."""
_SMALL = 10_000
"""Bytes of a request that holds a label."""


def application(session: Session, port: int, token: str) -> App:
    """Make the page.

    Args:
        session: What it shows.
        port: On which this machine listens.
        token: That requests must hold, see ``otfew.app.guard``.
    """
    work = _Work(session)
    routes = [Route(path, _file(*entry)) for path, entry in PAGE.items()]
    routes += [
        Route(path, _answered(endpoint), methods=[method])
        for method, path, endpoint in (
            ("GET", "/api/state", work.state),
            ("POST", "/api/photos", work.drop),
            ("DELETE", "/api/photos/{number:int}", work.remove),
            ("GET", "/api/photos/{number:int}/picture", work.picture),
            ("GET", "/api/photos/{number:int}/why", work.why),
            ("PUT", "/api/photos/{number:int}/label", work.teach),
            ("DELETE", "/api/photos/{number:int}/label", work.unteach),
            ("GET", "/api/answers.csv", work.table),
            ("POST", "/api/model", work.model),
        )
    ]
    return Guard(Starlette(routes=routes), port, token)


class _Work:
    """Endpoints; what takes time is done in one thread, so that the page stays responsive."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.thread = ThreadPoolExecutor(1, "otfew")
        self.reading = asyncio.Semaphore(session.limits.reading)

    async def aside(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.thread, partial(function, *arguments))

    async def state(self, request: Request) -> Response:
        return JSONResponse(await self.aside(self.session.state))

    async def drop(self, request: Request) -> Response:
        name = unquote(request.headers.get("x-name", ""), errors="replace")
        async with self.reading:
            self.session.check_room(_length(request))
            data = await _body(request, self.session.limits.file_bytes)
            return JSONResponse(await self.aside(self.session.drop, name, data), 201)

    async def remove(self, request: Request) -> Response:
        return JSONResponse(await self.aside(self.session.remove, request.path_params["number"]))

    async def picture(self, request: Request) -> Response:
        return Response(self.session.picture(request.path_params["number"]), media_type="image/jpeg")

    async def why(self, request: Request) -> Response:
        return JSONResponse(await self.aside(self.session.explain, request.path_params["number"]))

    async def teach(self, request: Request) -> Response:
        data = await _body(request, _SMALL)
        try:
            label = json.loads(data)["label"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError('the request holds no label: send {"label": ...}.') from None
        return JSONResponse(await self.aside(self.session.teach, request.path_params["number"], label))

    async def unteach(self, request: Request) -> Response:
        return JSONResponse(await self.aside(self.session.unteach, request.path_params["number"]))

    async def table(self, request: Request) -> Response:
        await asyncio.to_thread(self.session.wait)  # not in the thread by which corrections come
        return _download(await self.aside(self.session.table), "answers.csv", "text/csv")

    async def model(self, request: Request) -> Response:
        await asyncio.to_thread(self.session.wait)
        return _download(await self.aside(self.session.model), MODEL, "application/octet-stream")


def _answered(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Turn what the user can set right into an answer with its one sentence."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except LimitError as error:
            return JSONResponse({"error": str(error)}, 413)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 422)
        except ClientDisconnect:
            return Response(status_code=400)

    return answered


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Send a file of the package, read once."""
    content = (files("otfew.app") / "page" / name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=kind)

    return send


def _download(data: bytes, name: str, kind: str) -> Response:
    return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


def _length(request: Request) -> int:
    """Read how many bytes a request says that it holds; 0 where it does not say."""
    told = request.headers.get("content-length", "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 19 else 0


async def _body(request: Request, most: int) -> bytes:
    """Read a request's bytes, whatever it says of their number.

    Raises:
        LimitError: There are more.
    """
    too_many = LimitError(f"this holds more than {most / 10**6:,.3g} MB, the most the page takes: shrink it.")
    if _length(request) > most:
        raise too_many
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise too_many
    return bytes(data)
