"""Our checkpoints by name and sha256: in the package, in $OTFEW_ZOO, in the cache, or downloaded, else said."""

from __future__ import annotations

import functools
import http.server
import subprocess
import threading
from pathlib import Path

import pytest

from otfew import backbones
from otfew.backbones import hosts, loading, weights
from otfew.backbones import zoo as zoo_module
from otfew.backbones.cards import Card
from otfew.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Our cards without weights, as a wheel has them; the weights lie in a folder elsewhere."""
    package, elsewhere = tmp_path / "package", tmp_path / "elsewhere"
    package.mkdir()
    card = Card(
        "birds",
        "conv4",
        {"channels": 4},
        dataset="cub",
        training_classes=("a",),
        protocol={"command": "python -m train"},
    )
    weights.save(elsewhere / "birds.safetensors", backbones.ARCHITECTURES["conv4"](channels=4), card)
    (elsewhere / "birds.json").rename(package / "birds.json")
    monkeypatch.setattr(zoo_module, "ZOO", package)
    monkeypatch.setattr(zoo_module, "IN_CHECKOUT", ("birds",))
    monkeypatch.setenv("OTFEW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OTFEW_ZOO", raising=False)
    return elsewhere


def refusal(spec=None, **options):
    with pytest.raises(UserError) as caught:
        backbones.load(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wheel_says_what_is_missing_and_takes_no_other_network(wheel, monkeypatch):
    monkeypatch.setattr(loading.efficientnet_lite0, "load", lambda: pytest.fail("took the external network unasked"))
    card = zoo_module.zoo()["birds"]
    for message in (refusal(dataset="cub"), refusal("birds")):
        assert f"the weights of 'birds' (sha256 {card.sha256[:16]}...) are not on this machine" in message
        assert "nobody serves them for download yet" in message
        assert "copy birds.safetensors from otfew/backbones/zoo of a checkout into a folder that $OTFEW_ZOO" in message
        assert "(python -m train)" in message
        assert "efficientnet-lite0, of ImageNet weights, must be asked for" in message
    assert "(weights not on this machine)" in dict(backbones.available())["birds"]


def test_a_seed_that_no_checkout_holds_is_made_again(wheel, monkeypatch):
    monkeypatch.setattr(zoo_module, "IN_CHECKOUT", ())
    message = refusal("birds")
    assert "train such a network again (python -m train)" in message
    assert "checkout" not in message


@pytest.mark.parametrize("place", ["OTFEW_ZOO", "cache"])
def test_weights_are_found_by_name(wheel, place, tmp_path, monkeypatch):
    if place == "cache":
        (tmp_path / "cache").mkdir()
        wheel.rename(tmp_path / "cache" / "zoo")
    else:
        monkeypatch.setenv("OTFEW_ZOO", str(wheel))
    assert backbones.load(None, dataset="cub").name == "birds"


def test_other_weights_of_the_name_are_refused(wheel, monkeypatch):
    monkeypatch.setenv("OTFEW_ZOO", str(wheel))
    other = Card("birds", "conv4", {"channels": 4})
    weights.save(wheel / "birds.safetensors", backbones.ARCHITECTURES["conv4"](channels=4), other)
    assert "sha256 differs" in refusal("birds")


def test_a_folder_of_weights_that_is_none(wheel, monkeypatch):
    monkeypatch.setenv("OTFEW_ZOO", str(wheel / "nowhere"))
    assert "$OTFEW_ZOO" in refusal("birds")


@pytest.fixture
def served(wheel):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(wheel))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_weights_are_downloaded_and_checked(wheel, served, tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "HOSTS", (f"{served}/nowhere", served))
    assert backbones.load("birds").name == "birds"
    assert (tmp_path / "cache" / "zoo" / "birds.safetensors").is_file()
    (wheel / "birds.safetensors").unlink()
    assert backbones.load("birds").name == "birds"


def test_a_host_that_serves_something_else(wheel, served, monkeypatch):
    (wheel / "birds.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(hosts, "HOSTS", (served,))
    message = refusal("birds")
    assert "is not the published file" in message
    assert "copy birds.safetensors" in message


def test_nobody_serves_them_yet():
    assert hosts.HOSTS == ()


def test_the_checkout_holds_what_a_user_gets_by_default():
    listed = subprocess.run(
        ["git", "ls-files", "otfew/backbones/zoo/*.safetensors"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("no checkout")
    names = {Path(line).stem for line in listed.stdout.splitlines()}
    assert names == set(zoo_module.IN_CHECKOUT)
    assert {loading.default_for(d) for d in ("cub", "cifar-fs", "fc100", "omniglot", "glyphs")} <= names
    for name, card in zoo_module.zoo().items():
        # What was removed is a record: its digest, and the command that makes one like it.
        assert len(card.sha256) == 64
        assert zoo_module.command(card).startswith("python -m experiments.")
        if name in names:
            assert backbones.load(name).card == card
