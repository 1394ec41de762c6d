"""Listening on this machine, and on nothing else."""

from __future__ import annotations

import errno
import importlib.util
import os
import secrets
import socket
from collections.abc import Callable

from otfew.app.session import Session
from otfew.errors import UserError

ADDRESS = "127.0.0.1"
_CONNECTIONS = 100
_REASONS = {errno.EADDRINUSE: "in use", errno.EACCES: "reserved for the system"}


def need_packages() -> None:
    """Raise ``UserError`` where what the page is made with is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise UserError('the page needs two packages: run pip install "otfew[app]".')


def listen(port: int) -> socket.socket:
    """Take a port of this machine; other machines cannot reach it.

    Args:
        port: 0 takes a free one.

    Raises:
        UserError: It is no port, or is taken or reserved.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"`port` is {port}: give one from 1 to 65535, or 0 for any that is free.")
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # else a port stays taken for a minute after its page was closed
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((ADDRESS, port))
        made.listen(_CONNECTIONS)
    except OSError as error:
        made.close()
        why = {errno.EADDRINUSE: "in use", errno.EACCES: "reserved for the system"}.get(
            error.errno or 0, "not to be had"
        )
        raise UserError(f"`port` {port} is {why}: give another one, or 0 for any that is free.") from error
    return made


def serve(session: Session, listening: socket.socket, tell: Callable[[str], None]) -> None:
    """Serve the page until the user stops it.

    Args:
        session: What it shows.
        listening: See ``listen``.
        tell: Told the page's address once the page can be asked for; the token behind its # never leaves the browser
            but in the header that the page's own script sends.
    """
    import uvicorn

    from otfew.app.web import application

    port, token = listening.getsockname()[1], secrets.token_urlsafe(32)
    config = uvicorn.Config(
        application(session, port, token),
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=3,
        proxy_headers=False,
    )
    tell(f"http://{ADDRESS}:{port}/#{token}")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        return
    finally:
        listening.close()
