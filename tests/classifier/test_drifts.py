"""How far photos are from their own middles is asked of the network once, also by the next process."""

import pytest

from otfew import FewShotClassifier
from otfew.classifier import fitting
from otfew.classifier.feature_store import STORE


@pytest.fixture(autouse=True)
def _nothing_in_memory():
    """What an earlier test of this process has asked would not be written to another folder."""
    STORE.clear()


def test_a_warm_cache_leaves_nothing_to_the_network(pools, tmp_path, monkeypatch):
    images, labels = pools.deck()
    made = FewShotClassifier(pools.network(), cache=tmp_path)
    made.fit(images, labels)
    drifts = [photo.drift for photo in made.labelled_.photos]
    STORE.clear()  # as in another process
    asked = []
    monkeypatch.setattr(fitting, "embed", lambda *args: asked.append(args))
    again = FewShotClassifier(pools.network(), cache=tmp_path).fit(images, labels)
    assert not asked
    assert [photo.drift for photo in again.labelled_.photos] == drifts
    assert any(drift is not None for drift in drifts)


def test_the_cache_is_of_the_network_and_the_photo(pools, tmp_path, monkeypatch):
    images, labels = pools.deck()
    FewShotClassifier(pools.network(), cache=tmp_path).fit(images, labels)
    asked, original = [], fitting.embed
    monkeypatch.setattr(fitting, "embed", lambda *args: (asked.append(args), original(*args))[1])
    FewShotClassifier(pools.network(cells=1), cache=tmp_path).fit(images, labels)
    assert len(asked) == len(images)
    asked.clear()
    FewShotClassifier(pools.network(), cache=tmp_path).fit([*images[:-1], images[-1][:, ::-1]], labels)
    assert len(asked) == 1
