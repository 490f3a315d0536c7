"""The durable paths of a node without its network and its model, each in a forked process, which a shim may end.

The test writes one JSON line for each run, {"operations": [...], "folder": ..., "config": ..., "tps": port}; the driver
forks, the child does the operations, and the driver answers with one JSON line: the exit code and what was said. The
imports take a second and the fork a millisecond, so that every single call can be tried.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from config.load import load_settings
from node.bootstrap.bundles import bundle_label, verified_cards
from node.bootstrap.roles import make_completion
from node.bootstrap.store import Node, open_store
from node.bootstrap.worker import job_options
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.identity import part10_head
from node.ops.processes import process_name
from node.send.courier import Courier
from node.translate.job import Executor
from node.translate.worker import Worker
from storage.arrivals import Closing
from storage.intake import Intake
from storage.series import Identifiers, Opening
from storage.states import SeriesState
from tests.builders import FakeTranslator
from tests.torture.scans import Scan, read_scan
from tests.torture.shim import write_mark

_EXPLICIT = "1.2.840.10008.1.2.1"
_BOUND_S = 20.0
_EXECUTOR: list[Executor] = []


@dataclass
class Session:
    """One run in the child: `say` tells the test what was promised."""

    node: Node
    scan: Scan
    say: Callable[[str], None]


def create(session: Session) -> None:
    """What the first start does: opening the store has made folders and tables."""
    assert session.node.spool.root.is_dir()


def receive(session: Session) -> None:
    """What the receiver does with one association; an acknowledgement for each slice."""
    node, scan = session.node, session.scan
    intake = Intake(node.spool, node.series)
    intake.clear_up("receive-1", _now())
    association = intake.commit(Opening("receive-1", "CTSIM", "127.0.0.1", _now()))
    for each in scan.slices:
        head = part10_head(CT_IMAGE_STORAGE, each.uid, _EXPLICIT)
        identifiers = Identifiers(
            study_uid=scan.study_uid,
            series_uid=scan.series_uid,
            sop_instance_uid=each.uid,
            sop_class_uid=CT_IMAGE_STORAGE,
            transfer_syntax_uid=_EXPLICIT,
        )
        intake.keep(association, "CTSIM", identifiers, (head, each.data), _now())
        session.say(f"acknowledged {each.uid}")
    intake.commit(Closing(association, True, _now()))


def complete(session: Session) -> None:
    """What completion does once the series is quiet."""
    completion, deadline = make_completion(session.node), time.monotonic() + _BOUND_S
    completion.begin()
    while session.node.series.undecided(_now(), 0.0) and time.monotonic() < deadline:
        completion.tick()
    assert f"series:{SeriesState.QUEUED}" in session.node.overview.counts(), "the series was not queued"


def work(session: Session) -> None:
    """What a worker does with one job, with arithmetic that takes no time."""
    settings = session.node.settings
    if not _EXECUTOR:
        _EXECUTOR.append(Executor("", FakeTranslator()))
    _EXECUTOR[0].bundle = bundle_label(verified_cards(settings)[settings.model.bundle])
    worker = Worker(
        session.node.jobs,
        session.node.spool,
        lambda _bundle, _faults: _EXECUTOR[0],
        lambda job, at: job_options(settings, at, repeat=job.repeat, version=job.version),
        session.node.destination_names,
        name="work-1",
        clock=_now,
    )
    session.node.jobs.release_expired(_now(), dead_worker="work-1")
    worker.run_once(_NEVER)


def deliver(session: Session) -> None:
    """What the courier does with one delivery."""
    node, name = session.node, process_name("deliver", "1")
    courier = Courier(
        node.outbox,
        node.spool,
        node.settings.destination,
        peers=node.peers,
        calling_ae=node.settings.scp.ae_title,
        name=name,
        clock=_now,
    )
    node.outbox.release_expired(_now(), dead_courier=name)
    courier.run_once(node.settings.destination[0])


OPERATIONS: dict[str, Callable[[Session], None]] = {
    operation.__name__: operation for operation in (create, receive, complete, work, deliver)
}


class _Never:
    """An event that nobody sets."""

    def is_set(self) -> bool:
        """Never."""
        return False


_NEVER: Any = _Never()


_LATER = [timedelta()]


def _now() -> datetime:
    """The time, or a later one: what waits for its next try is not waited for."""
    return datetime.now(UTC) + _LATER[0]


def _run(request: dict[str, Any], say: Callable[[str], None]) -> None:
    _LATER[0] = timedelta(seconds=request["later_s"])
    scan = read_scan([Path(path) for path in request["scan"]])
    with open_store(load_settings(Path(request["config"]))) as node:
        session = Session(node, scan, say)
        for name in request["operations"]:
            OPERATIONS[name](session)
            say(f"done {name}")


def _child(request: dict[str, Any], out: int) -> int:
    log = os.environ.get("SHIM_LOG")

    def say(text: str) -> None:
        os.write(out, f"{text}\n".encode())
        if log:
            write_mark(Path(log), text)

    try:
        _run(request, say)
    except Exception as error:
        say(f"error {type(error).__name__}: {error}")
        return 1
    return 0


def main() -> None:
    """Answer one request after the other until the input ends; the first is done here, so that all is loaded."""
    _run(json.loads(sys.stdin.readline()), lambda _text: None)
    for line in sys.stdin:
        request = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os._exit(_child(request, writer))
        os.close(writer)
        with os.fdopen(reader) as said:
            lines = said.read().splitlines()
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), "said": lines}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
