"""Corrections on the page: what is learnt, taken back, saved and refused."""

from __future__ import annotations

import json

import pytest

from otfew import FewShotClassifier
from otfew.app import Session

from .albums import connect, drop, fit, png, rows_of


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
    session.wait()
    _, second = client.get("/api/state").json()["photos"]
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
    client.delete(f"/api/photos/{other}/label")
    session.wait()
    state = client.get("/api/state").json()
    assert state["lines"] == before["lines"]
    assert state["classes"] == before["classes"]
    assert state["photos"] == before["photos"]
    assert client.delete(f"/api/photos/{other}/label").status_code == 422


def test_explanations_follow_what_was_learnt(client):
    number = drop(client, png("lake", 4, 90)).json()["number"]
    client.get(f"/api/photos/{number}/why")
    state = client.put(f"/api/photos/{number}/label", content=json.dumps({"label": "pond"})).json()
    assert client.get(f"/api/photos/{number}/why").json()["answer"] == state["photos"][0]["answer"] == "pond"


def test_a_saved_classifier_is_the_one_on_the_page(client, session, tmp_path):
    data = png("grass", 2, 90)
    number = drop(client, png((120, 20, 120), 1), "plum.png").json()["number"]
    client.put(f"/api/photos/{number}/label", content=json.dumps({"label": "plum"}))
    session.wait()
    told = drop(client, data).json()
    answer = client.post("/api/model")
    assert answer.headers["content-disposition"] == 'attachment; filename="photos.otfew"'
    (tmp_path / "kept.otfew").write_bytes(answer.content)
    loaded = FewShotClassifier.load(tmp_path / "kept.otfew", backbone=fit().embedder_.backbone)
    assert "plum" in loaded.classes_
    assert loaded.labelled_.photos[-1].name == "plum.png"
    assert loaded.predict_proba([data]).max() == told["confidence"]
    assert client.get("/api/state").json()["unsaved"] == 0


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


def test_a_label_that_is_markup_comes_back_as_text(client):
    number = drop(client, png("lake", 1)).json()["number"]
    label = "<script>alert(1)</script>"
    answer = client.put(f"/api/photos/{number}/label", content=json.dumps({"label": label}))
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["photos"][0]["given"] == label


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
