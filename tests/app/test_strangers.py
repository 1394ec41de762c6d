"""Everybody who must not get in."""

from __future__ import annotations

import asyncio

import pytest

from otfew.app.guard import HEADERS, OPEN, Guard
from otfew.errors import UserError

from .albums import HOST, TOKEN, connect, drop, png, web

EVERY = [
    ("GET", "/api/state"),
    ("POST", "/api/photos"),
    ("DELETE", "/api/photos/1"),
    ("GET", "/api/photos/1/picture"),
    ("GET", "/api/photos/1/why"),
    ("PUT", "/api/photos/1/label"),
    ("DELETE", "/api/photos/1/label"),
    ("GET", "/api/answers.csv"),
    ("POST", "/api/model"),
]

STRANGERS = [
    {"host": "evil.example"},
    {"host": "evil.example:8420"},
    {"host": "127.0.0.1"},
    {"host": "127.0.0.1:8421"},
    {"host": "0.0.0.0:8420"},
    {"host": "127.0.0.1:8420.evil.example"},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "https://127.0.0.1:8420"},
    {"origin": "http://127.0.0.1:8421"},
    {"origin": "http://127.0.0.1:8420.evil.example"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"x-otfew-token": None},
    {"x-otfew-token": ""},
    {"x-otfew-token": "another"},
    {"x-otfew-token": b"\xfc"},
]


@pytest.mark.parametrize(("method", "path"), EVERY)
def test_strangers_get_nothing_and_change_nothing(session, method, path):
    own = connect(session)
    drop(own, png("lake", 1))
    before = session.state()
    for headers in STRANGERS:
        answer = connect(session, **headers).request(method, path, content=png("lake", 2))
        assert answer.status_code == 403, headers
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert "access-control-allow-origin" not in answer.headers
        assert len(answer.text) < 120
    assert session.state() == before
    assert own.request(method, path, content=png("lake", 2)).status_code != 403


def test_every_route_is_in_the_lists_above(session):
    routes = web.application(session, 8420, TOKEN).app.routes
    found = {(method, route.path.replace("{number:int}", "1")) for route in routes for method in route.methods}
    assert {(method, path) for method, path in found if method != "HEAD"} == {*EVERY, *(("GET", p) for p in OPEN)}


@pytest.mark.parametrize("path", sorted(OPEN))
def test_the_page_itself_is_not_shown_under_other_names_or_in_frames(session, path):
    for headers in ({"host": "evil.example:8420"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert connect(session, **headers).get(path).status_code == 403
    visitor = {"origin": None, "x-otfew-token": None, "sec-fetch-site": "none"}
    assert connect(session, **visitor).get(path).status_code == 200
    assert connect(session, **visitor, host="localhost:8420").get(path).status_code == 200


def test_a_header_that_is_sent_twice_is_refused(session):
    guard = Guard(None, 8420, TOKEN)
    host, token = (b"host", HOST.encode()), (b"x-otfew-token", TOKEN.encode())
    guard.check("/api/state", [host, token])
    for twice in ([host, host, token], [host, token, token], [(b"host", b"evil.example"), host, token]):
        with pytest.raises(UserError, match="twice"):
            guard.check("/api/state", twice)
    with pytest.raises(UserError, match="another name"):
        guard.check("/", [])


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/page.html", "/page.js/../session.py",
     "/..%2fsession.py", "//etc/passwd", "/session.py", "/api/photos/..%2f..%2fetc%2fpasswd/picture",
     "/api/photos/-1/picture", "/api/photos/1e3/why", "/api/photos/" + "9" * 400 + "/picture", "/api", "/favicon.ico"],
)  # fmt: skip
def test_no_request_reads_a_file(client, path):
    answer = client.get(path)
    assert answer.status_code in {404, 422}
    assert "root:" not in answer.text
    assert "import" not in answer.text


def test_other_methods_and_other_kinds_of_requests_are_refused(client, session):
    for method in ("OPTIONS", "PUT", "PATCH", "TRACE"):
        assert client.request(method, "/api/photos").status_code == 405

    async def never(*_):
        raise AssertionError

    asyncio.run(Guard(never, 8420, TOKEN)({"type": "websocket"}, never, never))
