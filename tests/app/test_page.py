"""The page's requests: what it is made of, what is answered, explained and written; one thing at a time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from otfew.app import Session
from otfew.app.guard import HEADERS
from otfew.app.session import Named
from otfew.errors import UserError

from .albums import COLOURS, TOKEN, connect, drop, fit, pixels, png, rows_of, web


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


@pytest.mark.parametrize("method", [pytest.param("deepemd", marks=pytest.mark.slow), "cosine-centroid"])
def test_why_is_what_the_library_explains(method):
    known, data = fit(method, each=2), png("sand", 8, 70)
    client = connect(Session(fit(method, each=2)))
    why = client.get(f"/api/photos/{drop(client, data, 's.png').json()['number']}/why").json()
    told = known.explain(Named(data, "s.png"))
    assert why["sentences"][1:] == list(told.sentences()[1:])
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
