"""Who may ask: this machine's own page, and nobody who merely shares its browser.

A page of another site can send requests to 127.0.0.1 by way of the user's browser, and a name of another site can be
made to point there. The first is refused by what browsers say of a request's origin, the second by the host that the
request names, and both by a token that only who was shown the address of the page knows.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from otfew.errors import UserError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "x-otfew-token"
"""Header that holds the token. Another site's script may not send it: browsers ask first, and are not answered."""
OPEN = frozenset({"/", "/page.css", "/page.js"})
"""Paths that need no token: they are the same for everybody, and hold nothing."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""Of every answer."""


class Guard:
    """Refuses requests before anything of them is read, and adds ``HEADERS`` to every answer.

    Args:
        app: What is asked if the request may be.
        port: On which this machine listens.
        token: See ``TOKEN``.
    """

    def __init__(self, app: App, port: int, token: str) -> None:
        self.app = app
        self.hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        self.token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no use for another kind
            return

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                more = [
                    (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in names
                ]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            self.check(scope["path"], scope["headers"])
        except UserError as error:
            body = str(error).encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            # What was sent along is not read; the connection is of no further use.
            headers.append((b"connection", b"close"))
            await guarded({"type": "http.response.start", "status": 403, "headers": headers})
            await guarded({"type": "http.response.body", "body": body})
            return
        await self.app(scope, receive, guarded)

    def check(self, path: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Raise ``UserError`` unless a request may be answered.

        Args:
            path: That it asks for.
            headers: Names in lower case.
        """
        found: dict[str, list[str]] = {}
        for name, value in headers:
            found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        host = _one(found, "host")
        if host is None or host.lower() not in self.hosts:
            raise UserError("this page is asked for under another name: open the address that otfew serve printed.")
        origin = _one(found, "origin")
        if origin is not None and origin not in {f"http://{name}" for name in self.hosts}:
            raise UserError("this request comes from another site: it is refused.")
        site = _one(found, "sec-fetch-site")
        if site is not None and site not in ({"same-origin", "none"} if path in OPEN else {"same-origin"}):
            raise UserError("this request comes from another site: it is refused.")
        given = (_one(found, TOKEN) or "").encode("latin-1", "replace")
        if path not in OPEN and not hmac.compare_digest(given, self.token):
            raise UserError("this request lacks the page's token: open the address that otfew serve printed.")


def _one(headers: Mapping[str, list[str]], name: str) -> str | None:
    """Return a header's value; one that is sent twice is refused, since others may read the other one."""
    values = headers.get(name, [])
    if len(values) > 1:
        raise UserError(f"the header {name} is sent twice: it is refused.")
    return values[0] if values else None
