"""`kill -9` on each process in the middle of its work, and on the TPS: the series arrives once and whole."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from models.testing import write_tiny_bundle
from tests.slice.harness import FEW, StoreScp, dcmtk, push, wait_for


def push_until(
    count: int, port: int, source: Path, act: Callable[["subprocess.Popen[str]"], object]
) -> tuple[int, int]:
    """Push a folder, call `act` once `count` instances were acknowledged; exit code and all acknowledgements."""
    success = "Received Store Response (Success)"
    command = [dcmtk("storescu"), "-v", "-aet", "CTSIM", "-aec", "SYNCECT", "+sd", "127.0.0.1", str(port), str(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as scan:
        assert scan.stdout is not None
        acknowledged = 0
        for line in scan.stdout:
            acknowledged += success in line
            if acknowledged == count:
                act(scan)
                break
        acknowledged += scan.stdout.read().count(success)
    return scan.returncode, acknowledged


def test_a_receiver_killed_while_receiving_loses_nothing_it_said_yes_to(few_slices, node_at, tps):
    node = node_at(tps).start()
    code, acknowledged = push_until(5, node.port, few_slices, lambda _scan: node.kill("receive"))
    assert code != 0, "the scanner must see that its send job failed"
    (case,) = wait_for("the store", node.cases)
    assert case.state == "RECEIVING"
    assert case.slices.received >= acknowledged
    wait_for("the receiver's restart", node._listening)
    assert push(node.port, few_slices).returncode == 0
    (case,) = node.wait_for_states("SENT")
    assert_once_and_whole(tps, FEW)
    assert list((node.data_dir / "spool" / "incoming").iterdir()) == []


def test_a_broken_off_transfer_is_not_taken_for_a_short_series(few_slices, node_at, tps):
    node = node_at(tps).start()
    push_until(6, node.port, few_slices, lambda scan: scan.kill())
    (case,) = node.wait_for_states("INCOMPLETE")
    assert "aborted" in case.reason
    assert push(node.port, few_slices).returncode == 0
    node.wait_for_states("SENT")
    assert_once_and_whole(tps, FEW)


def test_a_worker_killed_while_translating_starts_again(few_slices, node_at, tps, tmp_path):
    slow = tmp_path / "slow"
    write_tiny_bundle(slow, matrix=64)
    node = node_at(tps, bundle=slow).start()
    push(node.port, few_slices)
    node.wait_for_states("RUNNING")
    node.kill("work")
    (case,) = node.wait_for_states("SENT")
    assert case.attempts == 2
    assert_once_and_whole(tps, FEW)
    derived = node.data_dir / "spool" / "derived"
    assert [path.name for path in derived.iterdir()] == ["1-2"], "nothing of the first attempt is left"


def test_a_courier_killed_while_sending_sends_the_rest(few_slices, node_at, tmp_path):
    tps = StoreScp(tmp_path / "tps", extra=("--sleep-after", "1")).start()
    try:
        node = node_at(tps).start()
        push(node.port, few_slices)
        wait_for("three accepted instances", lambda: any(case.slices.sent >= 3 for case in node.cases()))
        node.kill("deliver")
        tps.kill()
        accepted = node.cases()[0].slices.sent
        tps.extra = ()
        tps.start()
        node.wait_for_states("SENT")
        assert accepted < FEW
        assert_once_and_whole(tps, FEW)
    finally:
        tps.kill()


def test_a_tps_killed_in_mid_transfer_gets_only_what_is_missing(few_slices, node_at, tmp_path):
    tps = StoreScp(tmp_path / "tps", extra=("--sleep-after", "1")).start()
    try:
        node = node_at(tps).start()
        push(node.port, few_slices)
        wait_for("three accepted instances", lambda: any(case.slices.sent >= 3 for case in node.cases()))
        tps.kill()
        wait_for("the courier's notice", lambda: any("tps:" in case.reason for case in node.cases()))
        accepted = node.cases()[0].slices.sent
        first = {path: path.stat().st_mtime_ns for path in tps.files()}
        for path in list(first)[:accepted]:
            path.rename(tmp_path / path.name)  # what the TPS had said yes to must not come again
        tps.extra = ()
        tps.start()
        node.wait_for_states("SENT")
        again = {dcmread(path).SOPInstanceUID for path in tps.files()}
        before = {dcmread(tmp_path / path.name).SOPInstanceUID for path in list(first)[:accepted]}
        assert len(before) == accepted
        assert not again & before
        assert len(again) == FEW - accepted
    finally:
        tps.kill()


def assert_once_and_whole(tps: StoreScp, count: int) -> None:
    images = [dcmread(path) for path in tps.files()]
    assert len(images) == count
    assert len({image.SOPInstanceUID for image in images}) == count
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert len({image.SourceImageSequence[0].ReferencedSOPInstanceUID for image in images}) == count


def test_stopping_the_supervisor_by_force_stops_its_children(node_at, tps):
    node = node_at(tps).start()
    run_dir: Path = node.data_dir / "run"
    node.kill("serve")
    from node.ops.processes import running_processes

    wait_for("the children's end", lambda: not running_processes(run_dir))
