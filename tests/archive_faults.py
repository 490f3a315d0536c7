"""A translator of an archive whose process ends at sources of certain names, for tests on a Ray cluster."""

import os
import signal
from pathlib import Path

from node.archive.index import Entry
from node.archive.outcome import Outcome
from node.archive.translate import ArchiveTranslator
from node.translate.job import Executor

DIES, DIES_ONCE = "dies", "dies once"


class EndingTranslator(ArchiveTranslator):
    """Ends after the files of a source were fetched, judged, translated and put, and before anybody hears of it."""

    def _translate(self, entry: Entry, executor: Executor) -> Outcome:
        outcome = super()._translate(entry, executor)
        source = Path(entry.source)
        flag = source.parent / "has died"
        if source.name == DIES or (source.name == DIES_ONCE and not flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome
