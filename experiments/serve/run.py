"""One run of serve: from labelled photos to a page, until it is stopped."""

from __future__ import annotations

import webbrowser

from rich.console import Console

from otfew.app import Session, listening
from otfew.experiments.common import own_photos, setup
from otfew.experiments.common.watch import ConsoleWatch
from otfew.experiments.serve.config import Config


def run_serve(config: Config, console: Console) -> None:
    """Fit or load, say what is known, and serve the page.

    Args:
        config: The command line.
        console: Where sentences and progress go.

    Raises:
        UserError: Whatever the user can set right.
    """
    listening.need_packages()
    own_photos.check_rate(config.unknown)
    watch = ConsoleWatch(console)
    # A port that is taken is told before photos are read, not after.
    with listening.listen(config.port) as taken:
        setup.set_threads(config.threads)
        classifier = own_photos.fitted(config, watch)
        own_photos.tell_known(classifier, watch)
        session = Session(classifier)

        def tell(address: str) -> None:
            watch.note(f"the page, until Ctrl-C: {address}")
            if config.open:
                webbrowser.open(address)

        listening.serve(session, taken, tell)
    lost = session.unsaved
    told = f"; {lost} change{'s' * (lost != 1)} of what is known {'were' if lost != 1 else 'was'} not saved"
    watch.note(f"stopped{told if lost else ''}")
