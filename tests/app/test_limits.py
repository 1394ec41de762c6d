"""What comes in by the page: names that are traps, files that are none, bombs, and how much is taken."""

from __future__ import annotations

import asyncio

import pytest

from otfew.app import Limits, Session

from .albums import HOST, PORT, TOKEN, bomb, connect, drop, fit, png, web

HOSTILE = [
    "../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "C:\\secret.png",
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(1)</script>.png",
    "a\r\nset-cookie: x=1.png",
    "\u202egnp.exe",
    "\x1b[31mred.png",
    "=cmd|'/c calc'!A0",
    "nul\x00.png",
    "." * 300 + ".png",
    "x" * 5000 + ".png",
    "",
    "   ",
    "..",
    "~/.ssh/id_rsa",
    "{{7*7}}.png",
    "ünï☃.png",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_nothing_else(client, name, monkeypatch):
    opened = []
    monkeypatch.setattr("otfew.data.decoding.picture.read_image", opened.append)
    answer = drop(client, png("lake", 1), name)
    assert answer.status_code == 201
    told = answer.json()["name"]
    assert told
    assert len(told) <= 120
    assert not set(told) & set("/\r\n\x00\x1b\u202e")
    assert opened == []
    assert "set-cookie" not in answer.headers
    refused = drop(client, b"no image", name)
    assert refused.status_code == 422
    assert not set(refused.json()["error"]) & set("\r\n\x00\x1b\u202e")
    row = client.get("/api/answers.csv").text.splitlines()[1]
    assert not row.startswith(("=", "+", "@"))


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"%PDF-1.4", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
     png("lake", 1)[:-30], b"GIF89a", b"PK\x03\x04", b"/etc/passwd", b"\x93NUMPY\x01\x00", bytes(5000)],
)  # fmt: skip
def test_what_is_no_image_is_one_sentence(client, data):
    answer = drop(client, data, "odd.png")
    assert answer.status_code == 422
    sentence = answer.json()["error"]
    assert "odd.png" in sentence
    assert "\n" not in sentence
    assert client.get("/api/state").json()["photos"] == []


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**31 - 1, 1), (1, 2**31 - 1), (20_000, 20_000)])
def test_bombs_are_refused_before_they_are_decoded(client, size):
    answer = drop(client, bomb(*size), "bomb.png")
    assert answer.status_code == 422
    assert "pixels" in answer.json()["error"]


def asked(session, receive, *headers):
    """Send a photo as a server would hand it on, part by part; return the status of the answer."""
    sent = []

    async def send(message):
        sent.append(message)

    own = [(b"host", HOST.encode()), (b"x-otfew-token", TOKEN.encode()), *headers]
    scope = {"type": "http", "method": "POST", "path": "/api/photos", "headers": own, "query_string": b""}
    scope |= {"http_version": "1.1", "root_path": ""}
    asyncio.run(web.application(session, PORT, TOKEN)(scope, receive, send))
    return sent[0]["status"]


def test_large_files_are_refused():
    data = png("lake", 1)
    client = connect(Session(fit(), Limits(file_bytes=len(data))))
    assert drop(client, data).status_code == 201
    answer = drop(client, data + b"x")
    assert answer.status_code == 413
    assert "shrink it" in answer.json()["error"]


def test_a_file_without_an_end_is_not_read_to_its_end():
    parts = []

    async def receive():
        parts.append(1)
        assert len(parts) <= 11
        return {"type": "http.request", "body": bytes(100), "more_body": True}

    assert asked(Session(fit(), Limits(file_bytes=1000)), receive) == 413
    parts.clear()
    assert asked(Session(fit(), Limits(file_bytes=1000)), receive, (b"content-length", b"50")) == 413


@pytest.mark.parametrize(("length", "limits"), [(b"99999999999", Limits()), (b"10", Limits(photos=0))])
def test_what_has_no_room_is_refused_unread(length, limits):
    """By what it says of its size, or by what is held already; nothing of it is asked for."""

    async def receive():
        raise AssertionError("it was read")

    assert asked(Session(fit(), limits), receive, (b"content-length", length)) == 413


def test_the_page_holds_so_many_photos():
    client = connect(Session(fit(), Limits(photos=2)))
    assert [drop(client, png("lake", i)).status_code for i in range(3)] == [201, 201, 413]
    client.delete("/api/photos/1")
    assert drop(client, png("lake", 9)).status_code == 201


def test_the_page_holds_so_many_bytes():
    size = len(png("lake", 0))
    client = connect(Session(fit(), Limits(total_bytes=2 * size + 100)))
    assert [drop(client, png("lake", 0)).status_code for _ in range(3)] == [201, 201, 413]
