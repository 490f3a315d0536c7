"""Series that took gigabytes, or the receiver, reach a whole node: it answers, stays small, and serves the others."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context

from config.settings import DestinationSettings
from node.network.requestor import associate
from node.ops.processes import running_processes
from tests.bombs import JPEG_2000, RLE, jpeg_2000, rle, rle_bomb, with_frame
from tests.builders import make_series
from tests.slice.harness import RunningNode, wait_for

VERIFICATION = "1.2.840.10008.1.1"
MAX_RSS_BYTES = 700 << 20  # the worker with torch; the receiver stays below 200 MB


@pytest.fixture(autouse=True)
def _as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the bytes of a file: to decode a million items and encode them again takes pydicom a minute."""
    monkeypatch.setattr("pynetdicom._config.STORE_SEND_CHUNKED_DATASET", True)


def send(port: int, paths: list[Path]) -> list[int]:
    """Store the files as they are, with an echo behind each; the statuses of the stores."""
    peer = DestinationSettings(name="NODE", ae_title="SYNCECT", host="127.0.0.1", port=port)
    syntaxes = (JPEG_2000, RLE, ExplicitVRLittleEndian)
    contexts = [build_context(VERIFICATION), *(build_context(CTImageStorage, syntax) for syntax in syntaxes)]
    statuses = []
    with associate(peer, "CTSIM", contexts) as association:
        for path in paths:
            statuses.append(int(association.send_c_store(path).Status))
            assert association.send_c_echo().Status == 0
    return statuses


def nested(folder: Path) -> list[Path]:
    """A series of which a slice has a million item headers behind its Series Instance UID."""
    paths = make_series(folder, slices=11, seed="nested")
    sequence = struct.pack("<HH2sHL", 0x0028, 0x3000, b"SQ", 0, 0xFFFFFFFF)
    bomb = sequence + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_000_000 + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    data = paths[4].read_bytes()
    at = data.index(struct.pack("<HH", 0x7FE0, 0x0010), 340)
    paths[4].write_bytes(data[:at] + bomb + data[at:])
    return paths


def rss_bytes(pid: int) -> int:
    """The most memory that a process held; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(one for child in children for one in family(int(child)))]


def test_content_that_kills_costs_only_itself(tmp_path: Path, node_at: Any, limits: Callable[[str], None]) -> None:
    limits("")  # each process has the memory of its own work, and not that of one which has loaded all
    node: RunningNode = node_at().start("serve")
    run = node.data_dir / "run"
    wait_for("completion's start", lambda: {"receive", "complete"} <= {view.role for view in running_processes(run)})
    receiver = next(view.pid for view in running_processes(run) if view.role == "receive")
    bombs = [
        with_frame(tmp_path / "hundred", jpeg_2000(100, 4096, 4096), JPEG_2000, seed="hundred"),
        with_frame(tmp_path / "many", jpeg_2000(16384, 32, 32), JPEG_2000, seed="many"),
        with_frame(tmp_path / "rle", rle(rle_bomb(2000)), RLE, seed="rle"),
        with_frame(tmp_path / "gap", jpeg_2000(100, 4096, 4096), JPEG_2000, seed="gap")[:7]
        + with_frame(tmp_path / "gap2", jpeg_2000(100, 4096, 4096), JPEG_2000, seed="gap")[8:],
        nested(tmp_path / "nested"),
    ]
    for paths in bombs:
        assert send(node.port, paths) == [0] * len(paths)
    send(node.port, make_series(tmp_path / "good", slices=11, seed="good"))
    cases = node.wait_for_states("FAILED", "FAILED", "FAILED", "INCOMPLETE", "SKIPPED", "PRODUCED")
    said = [case.reason for case in cases]
    assert "4096 x 4096 pixels, and 32 x 32 in the header" in said[0]
    assert "16384 components" in said[1]
    assert "expands to" in said[2]
    assert "more than 20000 elements" in said[4]
    views = running_processes(run)
    assert next(view.pid for view in views if view.role == "receive") == receiver  # it never died
    pids = {pid for view in views for pid in family(view.pid)}
    assert max(map(rss_bytes, pids)) < MAX_RSS_BYTES
    assert rss_bytes(receiver) < MAX_RSS_BYTES // 2


def test_a_completion_that_is_killed_comes_back_under_a_receiver_that_was_started_alone(
    tmp_path: Path, node_at: Any
) -> None:
    node: RunningNode = node_at().start("receive")
    run = node.data_dir / "run"

    def completions() -> list[int]:
        return [view.pid for view in running_processes(run) if view.role == "complete"]

    wait_for("completion's start", completions)
    killed = node.kill("complete")
    wait_for("completion's return", lambda: [pid for pid in completions() if pid != killed])
    send(node.port, make_series(tmp_path / "good", slices=11))
    node.wait_for_states("QUEUED")
    assert node.stop() == [0]
    wait_for("completion's end", lambda: not completions())
