"""The page's requests: every route, every limit, and everybody who must not get in."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import cv2
import numpy as np
import pytest
import torch

from otfew import FewShotClassifier
from otfew.app import Limits, Session
from otfew.app.guard import HEADERS, OPEN, Guard
from otfew.backbones.base import Backbone, Card
from otfew.errors import UserError

pytest.importorskip("starlette", reason='no starlette: pip install "otfew[app]"')
testclient = pytest.importorskip("starlette.testclient", reason='no httpx: pip install "otfew[dev]"')
web = pytest.importorskip("otfew.app.web")

COLOURS = {"brick": (180, 60, 50), "grass": (60, 170, 60), "lake": (50, 70, 180), "sand": (190, 180, 120)}
PORT, TOKEN = 8420, "a-token"
HOST = f"127.0.0.1:{PORT}"


def pixels(colour, seed, spread=40):
    """A picture of noise about a colour: (20, 24, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0, spread, (20, 24, 3))
    return np.clip(np.array(COLOURS.get(colour, colour)) + noise, 0, 255).astype(np.uint8)


def png(colour, seed, spread=40):
    """The same as a file's bytes."""
    return cv2.imencode(".png", pixels(colour, seed, spread)[:, :, ::-1])[1].tobytes()


def bomb(width, height):
    """A PNG of few bytes that says it holds many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def fit(method="cosine-centroid", labels=None, **settings):
    """A classifier of averages of 2 x 2 parts that knows six pictures of each colour."""
    card = Card("parts", "parts", resolution=8, mean=(0, 0, 0), std=(1, 1, 1))
    network = Backbone(torch.nn.AdaptiveAvgPool2d(2), card, "parts")
    names = [name for name in COLOURS for _ in range(6)]
    pictures = [pixels(name, 1000 * i) for i, name in enumerate(names)]
    return FewShotClassifier(network, method, **settings).fit(pictures, labels or names)


@pytest.fixture
def session():
    return Session(fit(), Limits())


@pytest.fixture
def client(session):
    return connect(session)


def connect(session, **headers):
    """A browser that shows the page."""
    given = {"x-otfew-token": TOKEN, "sec-fetch-site": "same-origin", "origin": f"http://{HOST}", **headers}
    app = web.application(session, PORT, TOKEN)
    return testclient.TestClient(
        app, base_url=f"http://{HOST}", headers={k: v for k, v in given.items() if v is not None}
    )


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


def drop(client, data, name="photo.png", **headers):
    return client.post("/api/photos", content=data, headers={"x-name": quote(name, safe=""), **headers})


def rows_of(client):
    return list(csv.DictReader(io.StringIO(client.get("/api/answers.csv").text)))


def test_the_page_is_three_files_with_strict_headers(client):
    for path, (_, kind) in web.PAGE.items():
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = client.get("/").text
    assert TOKEN not in page
    for text in (page, client.get("/page.js").text, client.get("/page.css").text):
        assert not {"//cdn", "https://", "@import", "innerHTML", "eval("} & {
            word for word in ("//cdn", "https://", "@import", "innerHTML", "eval(") if word in text
        }
    assert " style=" not in page
    assert " onclick=" not in page


def test_answers_are_those_of_the_classifier(client):
    known = fit()
    for i, name in enumerate(COLOURS):
        data = png(name, i, 70)
        told = drop(client, data, f"{name}.png")
        assert told.status_code == 201
        share = known.predict_proba([data])[0]
        first, second = np.argsort(-share)[:2]
        told = told.json()
        assert (told["answer"], told["runner_up"]) == (known.classes_[first], known.classes_[second])
        assert told["confidence"] == pytest.approx(share[first], abs=1e-9)
        assert told["name"] == f"{name}.png"
        assert told["unknown"] is False
    state = client.get("/api/state").json()
    assert [photo["number"] for photo in state["photos"]] == [1, 2, 3, 4]
    assert state["classes"] == [{"label": name, "photos": 6} for name in sorted(COLOURS)]
    assert state["lines"][0].startswith("24 photos of 4 classes (6 to 6 each); held out one a class")
    rows = rows_of(client)
    assert [row["file"] for row in rows] == [f"{name}.png" for name in COLOURS]
    assert [row["label"] for row in rows] == [photo["answer"] for photo in state["photos"]]
    assert {row["corrected"] for row in rows} == {"no"}


def test_a_photo_of_nothing_known_is_unknown():
    client = connect(Session(fit(reject=0.1)))
    told = drop(client, png((128, 128, 128), 5, 3)).json()
    assert told["unknown"] is True
    assert rows_of(client)[0]["unknown"] == "yes"
    assert drop(client, png("brick", 7, 10)).json()["unknown"] is False


def test_the_picture_is_made_anew(client):
    data = png("lake", 3)
    number = drop(client, data).json()["number"]
    answer = client.get(f"/api/photos/{number}/picture")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert shown.shape == (20, 24, 3)
    assert np.abs(shown.mean((0, 1)) - pixels("lake", 3).mean((0, 1))).max() < 3


@pytest.mark.parametrize("method", ["deepemd", "cosine-centroid"])
def test_why_is_what_the_library_explains(method):
    client, known, data = connect(Session(fit(method))), fit(method), png("sand", 8, 70)
    why = client.get(f"/api/photos/{drop(client, data, 's.png').json()['number']}/why").json()
    told = known.explain(data)
    assert why["sentences"][1:] == [line.replace("image 0", "s.png") for line in told.sentences()[1:]]
    assert (why["answer"], why["runner_up"], why["method"]) == (told.answer, told.runner_up, method)
    assert np.allclose(np.array(why["boxes"]) * [24, 20, 24, 20], told.boxes, atol=1e-3)
    for toward, transport in zip(why["towards"], told.transports, strict=True):
        assert np.allclose(toward["mass"], transport.plan.sum(1) * len(transport.plan), atol=1e-3)
        for moves, row, similar in zip(toward["moves"], transport.plan, transport.similarity, strict=True):
            assert moves[0][1] == pytest.approx(row.max() / row.sum(), abs=1e-4)
            assert moves[0][2] == pytest.approx(similar[moves[0][0]], abs=1e-4)
            assert sum(share for _, share, _ in moves) <= 1 + 1e-3
        assert toward["picture"]["data"].startswith("data:image/jpeg;base64,")
    assert len(why["maps"]) == 2


def test_a_correction_teaches_and_can_be_taken_back(client, session):
    data = png((120, 20, 120), 1, 10)
    number = drop(client, data, "plum.png").json()["number"]
    other = drop(client, png((120, 20, 120), 2, 10), "plum2.png").json()["number"]
    before = client.get("/api/state").json()
    state = client.put(f"/api/photos/{number}/label", content=json.dumps({"label": "plum"})).json()
    assert {"label": "plum", "photos": 1} in state["classes"]
    assert state["unsaved"] == 1
    first, second = state["photos"]
    assert (first["given"], second["given"]) == ("plum", None)
    assert second["answer"] == "plum"
    fresh = fit().add([data], ["plum"])
    assert second["confidence"] == pytest.approx(fresh.predict_proba([png((120, 20, 120), 2, 10)]).max(), abs=1e-9)
    row = rows_of(client)[0]
    assert (row["label"], row["confidence"], row["corrected"]) == ("plum", "", "yes")
    # A second thought replaces the first.
    state = client.put(f"/api/photos/{number}/label", content=json.dumps({"label": "lake"})).json()
    assert {"label": "lake", "photos": 7} in state["classes"]
    assert "plum" not in {entry["label"] for entry in state["classes"]}
    state = client.put(f"/api/photos/{other}/label", content=json.dumps({"label": "sand"})).json()
    state = client.delete(f"/api/photos/{number}/label").json()
    assert [photo["given"] for photo in state["photos"]] == [None, "sand"]
    assert session.classifier.labelled_.photos[-1].name == "plum2.png"
    state = client.delete(f"/api/photos/{other}/label").json()
    assert state["classes"] == before["classes"]
    assert state["photos"] == before["photos"]
    assert client.delete(f"/api/photos/{other}/label").status_code == 422


def test_explanations_follow_what_was_learnt(client):
    number = drop(client, png("lake", 4, 90)).json()["number"]
    client.get(f"/api/photos/{number}/why")
    state = client.put(f"/api/photos/{number}/label", content=json.dumps({"label": "pond"})).json()
    assert client.get(f"/api/photos/{number}/why").json()["answer"] == state["photos"][0]["answer"] == "pond"


def test_a_saved_classifier_is_the_one_on_the_page(client, tmp_path):
    data = png("grass", 2, 90)
    number = drop(client, png((120, 20, 120), 1), "plum.png").json()["number"]
    client.put(f"/api/photos/{number}/label", content=json.dumps({"label": "plum"}))
    told = drop(client, data).json()
    answer = client.post("/api/model")
    assert answer.headers["content-disposition"] == 'attachment; filename="photos.otfew"'
    (tmp_path / "kept.otfew").write_bytes(answer.content)
    loaded = FewShotClassifier.load(tmp_path / "kept.otfew", backbone=fit().embedder_.backbone)
    assert "plum" in loaded.classes_
    assert loaded.labelled_.photos[-1].name == "plum.png"
    assert loaded.predict_proba([data]).max() == told["confidence"]
    assert client.get("/api/state").json()["unsaved"] == 0


def test_photos_leave_the_page(client):
    number = drop(client, png("grass", 2)).json()["number"]
    assert client.delete(f"/api/photos/{number}").json()["photos"] == []
    for method, path in (("GET", "picture"), ("GET", "why"), ("DELETE", "label")):
        answer = client.request(method, f"/api/photos/{number}/{path}")
        assert answer.status_code == 422
        assert "not on the page" in answer.json()["error"]


def test_a_method_that_sees_all_photos_at_once_is_refused():
    with pytest.raises(UserError, match="one at a time"):
        Session(fit("pt-map"))


def test_labels_that_are_numbers_stay_numbers():
    session = Session(fit(labels=[i for i in range(4) for _ in range(6)]))
    client = connect(session)
    number = drop(client, png("lake", 1)).json()["number"]
    assert client.put(f"/api/photos/{number}/label", content='{"label": "7"}').status_code == 200
    assert session.classifier.classes_.tolist() == [0, 1, 2, 3, 7]
    assert "whole number" in client.put(f"/api/photos/{number}/label", content='{"label": "x"}').json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"3", b"null", b"{}", b'{"label": 3}', b'{"label": null}', b'{"label": ""}', b'{"label": "  "}',
     b'{"label": ["a"]}', b'{"label": "' + b"x" * 81 + b'"}', b"\xff", b"[" * 5000, b'{"label": "unknown"}'],
)  # fmt: skip
def test_what_is_no_label_is_refused_and_nothing_changes(body):
    client = connect(Session(fit(reject=0.2)))
    number = drop(client, png("lake", 1)).json()["number"]
    before = client.get("/api/state").json()
    answer = client.put(f"/api/photos/{number}/label", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert client.get("/api/state").json() == before


def test_a_request_for_a_label_is_short(client):
    number = drop(client, png("lake", 1)).json()["number"]
    assert client.put(f"/api/photos/{number}/label", content=b" " * 10_001).status_code == 413


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


def test_a_label_that_is_markup_comes_back_as_text(client):
    number = drop(client, png("lake", 1)).json()["number"]
    label = "<script>alert(1)</script>"
    answer = client.put(f"/api/photos/{number}/label", content=json.dumps({"label": label}))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["photos"][0]["given"] == label


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


def test_forty_photos_at_once(client, session):
    files = [(f"{i}.png", png(list(COLOURS)[i % 4], i, 60)) for i in range(40)]
    with client, ThreadPoolExecutor(40) as pool:
        told = list(pool.map(lambda file: drop(client, file[1], file[0]), files))
    assert {answer.status_code for answer in told} == {201}
    photos = {photo["name"]: photo for photo in session.state()["photos"]}
    assert len(photos) == 40
    assert len({photo["number"] for photo in photos.values()}) == 40
    shares = fit().predict_proba([data for _, data in files])
    assert [photos[name]["confidence"] for name, _ in files] == pytest.approx(shares.max(1).tolist(), abs=1e-6)


def test_one_thing_is_done_at_a_time(session, monkeypatch):
    """Whoever calls the session, and from however many threads."""
    at_once, most = [], []
    before = session.classifier.embedder_

    def slow(images, *more):
        at_once.append(1)
        time.sleep(0.02)
        most.append(len(at_once))
        at_once.pop()
        return before(images, *more)

    monkeypatch.setattr(session.classifier, "embedder_", slow)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: session.drop(f"{i}.png", png("lake", i)), range(8)))
    assert most == [1] * 8


def test_the_page_answers_while_the_classifier_works(client, session, monkeypatch):
    number = drop(client, png("lake", 1)).json()["number"]
    begun, go_on = threading.Event(), threading.Event()

    def slow(number):
        begun.set()
        assert go_on.wait(30)
        return {}

    monkeypatch.setattr(session, "explain", slow)
    with client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, f"/api/photos/{number}/why")
        assert begun.wait(30)
        assert client.get("/").status_code == 200
        assert client.get(f"/api/photos/{number}/picture").status_code == 200
        assert not waiting.done()
        go_on.set()
        assert waiting.result().status_code == 200


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


def test_labelled_photos_are_not_read_from_where_a_name_points(client, tmp_path):
    """A photo that was dropped under the name of a file of this machine explains itself by its own pixels."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png("sand", 99))
    number = drop(client, png("lake", 1), str(secret)).json()["number"]
    client.put(f"/api/photos/{number}/label", content='{"label": "pond"}')
    told = client.get(f"/api/photos/{number}/why").json()
    assert told["towards"][0]["name"] == "secret.png"
    assert str(tmp_path) not in json.dumps({**told, "picture": "", "maps": ""})
    assert client.get("/api/state").json()["photos"][0]["nearest"] == "secret.png"
