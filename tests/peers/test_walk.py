"""A newcomer who follows a slice to its first answer reads few files."""

from pathlib import Path

from bench.walk import first_answer


def test_a_slice_passes_at_most_12_files_to_its_first_answer(tmp_path: Path) -> None:
    walk = first_answer(tmp_path)
    assert len(walk.files) <= 12, sorted(walk.files)
    assert {"node/network/server.py", "node/receive/receiver.py", "storage/spool.py"} <= walk.files
