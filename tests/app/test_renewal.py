"""Corrections answer at once, and figures follow: of what is known in the end, whatever comes when."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from otfew import FewShotClassifier
from otfew.app import Session
from otfew.app.renewal import Renewal
from otfew.classifier import trust
from otfew.errors import UserError

from .albums import COLOURS, connect, drop, fit, pixels, png

PLUM = (120, 20, 120)
SOON = 30
"""Seconds that nothing here takes, unless it hangs."""


class Held:
    """Stands where photos are held out: counts, and lets each go on when it is told to."""

    def __init__(self, monkeypatch):
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.calls, self.fails = 0, None
        before = trust.assess

        def assess(*given, **options):
            self.calls += 1
            self.begun.release()
            assert self.go_on.acquire(timeout=SOON)
            if self.fails:
                raise self.fails
            return before(*given, **options)

        monkeypatch.setattr(trust, "assess", assess)

    def starts(self):
        assert self.begun.acquire(timeout=SOON)


@pytest.fixture
def held(session, monkeypatch):
    """After the page has begun."""
    return Held(monkeypatch)


def label(client, number, name):
    answer = client.put(f"/api/photos/{number}/label", content=json.dumps({"label": name}))
    assert answer.status_code == 200, answer.text
    return answer.json()


def lines_of(classifier):
    return classifier.report_.lines([photo.title for photo in classifier.labelled_.photos])


def test_a_correction_is_answered_before_figures_are_there(client, session, held):
    data, other = png(PLUM, 1, 10), png(PLUM, 2, 10)
    number = drop(client, data, "plum.png").json()["number"]
    drop(client, other, "plum2.png")
    before = session.classifier.calibration_
    state = label(client, number, "plum")  # nothing lets the figures go on
    held.starts()
    assert state["renewing"]
    assert state["lines"] == ["25 photos of 5 classes; figures are being renewed"]
    assert state["photos"][1]["answer"] == "plum"
    assert session.classifier.calibration_ == before
    # Photos, explanations and the list of classes do not wait either.
    assert drop(client, png("lake", 3), "lake.png").json()["answer"] == "lake"
    assert client.get(f"/api/photos/{number}/why").json()["answer"] == "plum"
    assert {"label": "plum", "photos": 1} in client.get("/api/state").json()["classes"]
    held.go_on.release()
    session.wait()
    state = client.get("/api/state").json()
    assert not state["renewing"]
    assert held.calls == 1
    held.go_on.release()
    fresh = fit().add([data], ["plum"])
    assert state["lines"][0] == lines_of(fresh)[0]
    assert session.classifier.calibration_ == fresh.calibration_
    assert state["photos"][1]["confidence"] == pytest.approx(fresh.predict_proba([other]).max(), abs=1e-12)


def test_what_was_held_out_before_the_last_correction_is_let_go(client, session, held):
    first = drop(client, png(PLUM, 1, 10), "1.png").json()["number"]
    second = drop(client, png(PLUM, 2, 10), "2.png").json()["number"]
    label(client, first, "plum")
    held.starts()
    before = session.classifier.calibration_
    state = label(client, second, "plum")  # while the first is on its way
    assert {"label": "plum", "photos": 2} in state["classes"]
    held.go_on.release()
    held.starts()  # once more, of both
    assert session.classifier.calibration_ == before
    assert client.get("/api/state").json()["renewing"]
    held.go_on.release()
    session.wait()
    assert held.calls == 2
    held.go_on.release()
    fresh = fit().add([png(PLUM, 1, 10), png(PLUM, 2, 10)], ["plum", "plum"])
    assert session.classifier.report_.accuracy == fresh.report_.accuracy
    assert session.classifier.report_.quality == fresh.report_.quality
    assert held.calls == 2 + 1  # that of ``fresh``; the page's was there


def test_files_wait_for_figures(client, session, held, tmp_path):
    number = drop(client, png(PLUM, 1, 10), "plum.png").json()["number"]
    label(client, number, "plum")
    held.starts()
    with client, ThreadPoolExecutor(2) as pool:
        model = pool.submit(client.post, "/api/model")
        table = pool.submit(client.get, "/api/answers.csv")
        assert client.get("/api/state").json()["renewing"]  # which the two do not hold up
        assert not model.done()
        assert not table.done()
        held.go_on.release()
        assert table.result(SOON).status_code == 200
        (tmp_path / "a.otfew").write_bytes(model.result(SOON).content)
    kept = FewShotClassifier.load(tmp_path / "a.otfew", backbone=fit().embedder_.backbone)
    assert kept.report_ == session.classifier.report_
    assert kept.report_.classes == 5
    assert client.get("/api/state").json()["unsaved"] == 0


def test_figures_that_cannot_be_found_are_told_and_found_after_the_next_correction(client, session, held):
    number = drop(client, png(PLUM, 1, 10), "plum.png").json()["number"]
    before = session.classifier.calibration_
    held.fails = UserError("method 'x' answered NaN: check its options.")
    held.go_on.release(3)
    label(client, number, "plum")
    session.wait()
    state = client.get("/api/state").json()
    assert not state["renewing"]
    assert state["lines"] == [
        "25 photos of 5 classes; confidence is that of before: method 'x' answered NaN: check its options."
    ]
    assert state["photos"][0]["answer"] == "plum"
    assert session.classifier.calibration_ == before
    assert "answered NaN" in client.post("/api/model").json()["error"]
    assert client.get("/api/state").json()["unsaved"] == 1
    held.fails = None
    held.go_on.release(3)
    state = label(client, number, "lake")
    session.wait()
    assert client.get("/api/state").json()["lines"][0].startswith("25 photos of 4 classes (6 to 7 each); held out")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whoever_waits_is_told_of_what_nobody_thought_of(client, session, held):
    number = drop(client, png(PLUM, 1, 10)).json()["number"]
    held.fails = ZeroDivisionError("a mistake of ours")
    held.go_on.release()
    label(client, number, "plum")
    session.wait()
    assert "no fault of yours" in client.get("/api/state").json()["lines"][0]


def test_a_rate_that_the_photos_do_not_bear_is_refused_at_once(monkeypatch):
    """Of 24 photos, near-copies counted once, 18 can be held out; a correction that leaves too few changes nothing."""
    session = Session(fit(reject=1 / 19))
    held = Held(monkeypatch)
    client = connect(session)
    number = drop(client, png("lake", 99)).json()["number"]
    label(client, number, "lake")
    held.starts()
    held.go_on.release()
    session.wait()
    known = session.classifier.labelled_
    with pytest.raises(UserError, match="needs 18 labelled photos"), session.classifier.assessed_later():
        session.classifier.forget(range(6))
    assert session.classifier.labelled_ is known
    assert held.calls == 1


def test_many_corrections_from_many_threads_end_as_one_would(session):
    """Given, changed and taken back at once; nothing is lost, and figures are those of the end."""
    files = [pixels(PLUM if i % 2 else "lake", 50 + i, 15) for i in range(8)]
    datas = [png(PLUM if i % 2 else "lake", 50 + i, 15) for i in range(8)]
    numbers = [session.drop(f"{i}.png", data)["number"] for i, data in enumerate(datas)]

    def correct(i):
        session.teach(numbers[i], "sand")
        session.teach(numbers[i], "plum" if i % 2 else "lake")
        if i % 4 == 3:
            session.unteach(numbers[i])
        return session.state()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(correct, range(8)))
    session.wait()
    known = session.classifier.labelled_
    taught = [photo.name for photo in known.photos[24:]]
    assert sorted(taught) == ["0.png", "1.png", "2.png", "4.png", "5.png", "6.png"]
    fresh = fit()
    for name in taught:  # in the order in which they came
        i = int(name[0])
        fresh.add([files[i]], ["plum" if i % 2 else "lake"])
    np.testing.assert_array_equal(known.labels, fresh.labelled_.labels)
    assert session.classifier.calibration_ == fresh.calibration_
    assert session.classifier.report_.quality == fresh.report_.quality
    state = session.state()
    assert not state["renewing"]
    assert state["unsaved"] == 18
    told = {photo["name"]: photo for photo in state["photos"]}
    share = fresh.predict_proba(datas)
    for i in range(8):
        assert told[f"{i}.png"]["confidence"] == pytest.approx(share[i].max(), abs=1e-9)
        place = {name: 24 + k for k, name in enumerate(taught)}.get(f"{i}.png")
        assert session._photos[numbers[i]].place == place


def test_a_renewal_takes_only_what_was_searched_for_last():
    """Of a thing that changes five times while searches of each state go on."""
    lock, state, taken, gate = threading.Lock(), [0], [], threading.Semaphore(0)

    def prepare():
        seen = state[0]

        def search():
            assert gate.acquire(timeout=SOON)
            return seen

        return search

    renewal = Renewal(lock, prepare, lambda found: taken.append((found, state[0])))
    for number in range(1, 6):
        with lock:
            state[0] = number
            renewal.start()
    gate.release(10)
    with lock:
        renewal.wait()
        assert not renewal.running
    assert taken == [(5, 5)]


def test_learning_without_holding_out_is_held_out_when_it_is_asked_for():
    learnt, fresh = fit(), fit()
    before = learnt.calibration_
    with learnt.assessed_later():
        learnt.add([pixels(PLUM, 1)], ["plum"])
    assert learnt.calibration_ == before
    assert lines_of(learnt) == lines_of(fresh.add([pixels(PLUM, 1)], ["plum"]))
    assert learnt.calibration_ == fresh.calibration_ != before
    # What is learnt otherwise is held out as ever.
    learnt.remove("plum")
    assert learnt.calibration_ == fit().calibration_
    assert len(COLOURS) == 4
