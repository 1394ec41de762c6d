"""The page in a real browser: upload, answer, hover, correct, save; and pages of others beside it.

Needs playwright and a chromium of the system: `make browser`. With OTFEW_SCREENSHOTS, a folder, what is seen is kept
there.
"""

from __future__ import annotations

import csv
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from otfew import FewShotClassifier

api = pytest.importorskip("playwright.sync_api", reason="no playwright: make browser")
pytest.importorskip("uvicorn", reason='no uvicorn: pip install "otfew[app]"')
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium: make browser")]

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "examples" / "photos"
NEW = [PHOTOS / "new" / f"{name}.jpg" for name in ("Avocado-1", "Kiwi-1", "Ginger-1", "Zucchini-1")]
OPTIONS = "--port 0 --no-open --unknown 0.1 --backbone glyphs-resnet12-quarter --method cosine-centroid"
PATIENT = 60_000
"""Milliseconds to wait for what takes the classifier's work."""


@pytest.fixture(scope="module")
def address():
    """Start the command itself, and stop it as a user does."""
    words = [sys.executable, "-m", "otfew", "serve", str(PHOTOS / "labelled"), *OPTIONS.split(), "--nodes", "grid:2,3"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/#\S+", line):
                break
        else:
            raise AssertionError("".join(said))
        yield found.group()
        process.send_signal(2)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0, rest
        assert "stopped" in rest


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        shown = playwright.chromium.launch(executable_path=CHROMIUM)
        yield shown
        shown.close()


@pytest.fixture
def page(browser, address):
    """The page, emptied of photos; nothing may go wrong on it, and nothing may leave this machine."""
    shown = browser.new_page(viewport={"width": 1440, "height": 960})
    wrong, asked = [], []
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    shown.on("dialog", lambda dialog: wrong.append(dialog.message))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(address)
    api.expect(shown.locator("#save")).to_be_enabled(timeout=PATIENT)
    while shown.locator(".card").count():
        shown.locator(".card").first.click()
        count = shown.locator(".card").count()
        shown.locator("#remove").click()
        api.expect(shown.locator(".card")).to_have_count(count - 1, timeout=PATIENT)
    yield shown
    host = address.partition("#")[0]
    assert [url for url in asked if not url.startswith((host, "blob:" + host, "data:"))] == []
    # A refused photo is an answer of 4xx, which browsers report.
    assert [text for text in wrong if "the server responded with a status of 4" not in text] == []
    shown.close()


def look(page, name):
    if folder := os.environ.get("OTFEW_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def upload(page, *files):
    """Give files to the page and wait until it has answered about all."""
    count = page.locator(".card").count()
    page.set_input_files("#files", [str(path) for path in files])
    api.expect(page.locator(".card")).to_have_count(count + len(files), timeout=PATIENT)
    api.expect(page.locator("#status")).to_have_text("", timeout=PATIENT)


def chosen(page, number=0):
    page.locator(".card").nth(number).click()
    api.expect(page.locator("#why")).to_be_visible(timeout=PATIENT)


def test_upload_answer_hover_correct_save(page, tmp_path):
    look(page, "empty")
    upload(page, *NEW)
    look(page, "answers")
    names = page.locator(".card .name").all_inner_texts()
    assert sorted(names) == sorted(path.name for path in NEW)
    for told in page.locator(".card strong").all_inner_texts():
        assert told == "unknown" or re.fullmatch(r"[\w-]+ (> |< )?\d+ %", told.replace("\u00a0", " "))
    assert page.locator(".card img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100

    place = names.index("Kiwi-1.jpg")
    chosen(page, place)
    before = page.locator("#over path").count()
    assert before
    at = page.locator("#stage").bounding_box()
    told = set()
    for across in (0.05, 0.15, 0.25, 0.35):
        page.mouse.move(at["x"] + across * at["width"], at["y"] + 0.5 * at["height"])
        api.expect(page.locator("#moved")).to_contain_text("times the mean mass")
        told.add(page.locator("#moved").inner_text())
        assert page.locator("#over rect").count() >= 4
    assert len(told) > 1
    look(page, "hover")
    shares = [int(share) for share in re.findall(r"(\d+)\s% at similarity", told.pop())]
    assert 0 < sum(shares) <= 102
    page.mouse.move(at["x"] - 30, at["y"])
    api.expect(page.locator("#moved")).to_contain_text("Point at a region")
    page.locator("#stage").focus()
    page.keyboard.press("ArrowRight")
    api.expect(page.locator("#moved")).to_contain_text("Region 1 of 13")
    page.locator("#maps button").nth(1).click()
    page.locator("#towards button").nth(1).click()
    api.expect(page.locator("#towards button").nth(1)).to_have_attribute("aria-pressed", "true")
    look(page, "map")

    page.locator("#chips button", has_text="Kiwi").click()
    api.expect(page.locator(".card.given strong")).to_have_text("Kiwi", timeout=PATIENT)
    api.expect(page.locator("#summary")).to_contain_text("49 photos of 8 classes")
    page.locator(".card").nth(names.index("Ginger-1.jpg")).click()
    page.fill("#label", "Wild <b>ginger</b>")
    page.locator("#new button").click()
    api.expect(page.locator(".card.given")).to_have_count(2, timeout=PATIENT)
    api.expect(page.locator("#summary")).to_contain_text("50 photos of 9 classes")
    api.expect(page.locator("#chips")).to_contain_text("Wild <b>ginger</b>")
    assert page.locator("#chips b").count() == 0
    api.expect(page.locator("#why")).to_be_visible(timeout=PATIENT)
    look(page, "corrected")

    with page.expect_download() as event:
        page.locator("#table").click()
    event.value.save_as(tmp_path / event.value.suggested_filename)
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert rows["Kiwi-1.jpg"]["label"] == "Kiwi"
    assert {name: row["corrected"] for name, row in rows.items()} == {
        path.name: "yes" if path.name in {"Kiwi-1.jpg", "Ginger-1.jpg"} else "no" for path in NEW
    }
    api.expect(page.locator("#save")).to_contain_text("2 changes")
    with page.expect_download() as event:
        page.locator("#save").click()
    event.value.save_as(tmp_path / event.value.suggested_filename)
    api.expect(page.locator("#save")).to_have_text("Save classifier", timeout=PATIENT)
    loaded = FewShotClassifier.load(tmp_path / "photos.otfew")
    assert len(loaded.classes_) == 9
    assert "Wild <b>ginger</b>" in loaded.classes_
    assert loaded.labelled_.photos[-1].name == "Ginger-1.jpg"

    for name in ("Ginger-1.jpg", "Kiwi-1.jpg"):
        page.locator(".card").nth(names.index(name)).click()
        page.locator("#back").click()
        api.expect(page.locator("#back")).to_have_count(0, timeout=PATIENT)
    api.expect(page.locator("#summary")).to_contain_text("48 photos of 8 classes")


def test_photos_are_dropped(page):
    """As by hand: the browser's own event with files."""
    given = page.evaluate_handle(
        """async () => {
            const canvas = new OffscreenCanvas(64, 48);
            canvas.getContext("2d").fillRect(5, 5, 30, 20);
            const made = new DataTransfer();
            for (const name of ["a.png", "b.png"]) made.items.add(new File([await canvas.convertToBlob()], name));
            made.items.add(new File(["no image"], "c.txt"));
            return made;
        }"""
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": given})
    api.expect(page.locator(".card")).to_have_count(2, timeout=PATIENT)
    api.expect(page.locator("#errors")).to_contain_text("c.txt", timeout=PATIENT)
    look(page, "refused")
    page.locator("#errors button").click()
    api.expect(page.locator("#errors li")).to_have_count(0)


def test_names_of_files_are_text(page, tmp_path):
    bad = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    shutil.copy(NEW[0], bad)
    upload(page, bad)
    chosen(page)
    api.expect(page.locator("#title")).to_have_text(bad.name)
    api.expect(page.locator("#stage")).to_contain_text(bad.name)
    assert page.locator("[onerror]").count() == 0


def test_a_page_of_another_site_gets_nothing(page, browser, address, tmp_path):
    """On another port of this machine, which a browser takes for the same site but not for the same origin."""
    upload(page, NEW[0])
    (tmp_path / "evil.html").write_text("<!DOCTYPE html><title>evil</title>")
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: handler(*given, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        evil = browser.new_page()
        evil.goto(f"http://127.0.0.1:{server.server_address[1]}/evil.html")
        host, token = address.rstrip("/").split("#")
        got = evil.evaluate(
            """async ([host, token]) => {
                const tried = [];
                const attempts = [
                    [host, {}], [host + "api/state", {}], [host + "api/state", { headers: { "x-otfew-token": token } }],
                    [host + "api/model", { method: "POST", headers: { "x-otfew-token": token } }],
                    [host + "api/photos", { method: "POST", mode: "no-cors", body: "x" }],
                    [host + "api/photos/1/label", { method: "DELETE", headers: { "x-otfew-token": token } }],
                ];
                for (const [url, options] of attempts) {
                    try {
                        const answer = await fetch(url, options);
                        tried.push(answer.type === "opaque" ? "opaque" : await answer.text());
                    } catch { tried.push("refused"); }
                }
                const frame = document.createElement("iframe");
                frame.src = host;
                document.body.append(frame);
                await new Promise((done) => { frame.onload = done; setTimeout(done, 3000); });
                return [tried, frame.contentDocument === null ? "closed" : frame.contentDocument.body.innerText];
            }""",
            [host, token],
        )
        server.shutdown()
        evil.close()
    # Where the script may not read the answer it is none the wiser for having asked.
    assert set(got[0]) <= {"refused", "opaque"}
    assert got[1] in {"closed", ""}
    page.reload()
    api.expect(page.locator(".card")).to_have_count(1, timeout=PATIENT)
    api.expect(page.locator("#summary")).to_contain_text("48 photos of 8 classes")


def test_an_address_without_its_end_says_so(browser, address):
    shown = browser.new_page()
    shown.goto(address.partition("#")[0])
    api.expect(shown.locator("#summary")).to_contain_text("lacks its end")
    api.expect(shown.locator("#drop")).to_be_hidden()
    shown.close()
