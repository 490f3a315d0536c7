"""A node that made a result is destroyed and restored: it goes on as if nothing had happened."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from config.load import load_settings
from node.beats import no_beat
from node.bootstrap.rebuild import _arrival
from node.bootstrap.restore import restore
from node.bootstrap.roles import make_completion
from node.bootstrap.store import Node, open_store
from storage.arrivals import Recorded
from storage.intake import Intake
from storage.series import Identifiers
from tests.restorable import destroy, files

Call = Callable[..., tuple[int, str, str]]


def resend(node: Node, paths: list[Path]) -> list[object]:
    """The scanner sends the series once more, over the way that the receiver takes."""
    intake, now = Intake(node.spool, node.series), datetime.now(UTC)
    association = node.series.open_association("r", "CTSIM", "h", now)
    answers: list[object] = []
    for path in paths:
        one = _arrival(path, "")
        uids = Identifiers(
            one.study_uid, one.series_uid, one.sop_instance_uid, one.sop_class_uid, one.transfer_syntax_uid
        )
        answers.append(intake.keep(association, "CTSIM", uids, (path.read_bytes(),), now))
    node.series.close_association(association, released=True, now=now)
    return answers


def test_a_restored_node_sends_what_was_open_and_makes_no_second_result_of_a_resend(
    run: Call, config: Path, made: Node, tmp_path: Path
) -> None:
    from node.bootstrap.worker import make_worker

    data_dir = made.settings.node.data_dir
    before = files(data_dir)
    assert run("backup", tmp_path / "backup")[0] == 0
    made.database.close()
    model = config.read_text()
    destroy(config, data_dir, f"sqlite:///{tmp_path / 'other.sqlite3'}")
    config.write_text(config.read_text() + model[model.index("[model]") :])
    settings = load_settings(config)
    done = restore(settings, config, tmp_path / "backup", datetime.now(UTC))
    assert done.census.goes_on() == {"series": 0, "jobs": 0, "deliveries": 1}
    assert done.settings_differ
    with open_store(settings) as node:
        assert files(data_dir) == before
        (source,) = sorted((tmp_path / "source").iterdir())[:1]
        paths = sorted((tmp_path / "source").glob("*.dcm"))
        assert source in paths
        assert resend(node, paths) == [Recorded.DUPLICATE] * len(paths)
        make_completion(node).tick()
        assert not make_worker(node, "1", lambda _words: None, no_beat).run_once(threading.Event())
        (case,) = node.overview.cases()
        assert (case.id, case.state, case.version) == ("1", "PRODUCED", 1)
        claimed = node.outbox.claim("c", "tps", 60, datetime.now(UTC))
        assert claimed is not None
        assert len(claimed.missing) == len(paths)
    assert files(data_dir) == before
