"""The doubt beside a result: what is written is read again, and damage is told from absence."""

from pathlib import Path

import numpy as np
import pytest

from node.dicom.doubt_file import DOUBT_FILE, Doubt, read_doubt, write_doubt


def _doubt() -> Doubt:
    hu = np.zeros((3, 4, 5), np.float32)
    hu[1, 2, 3], hu[2, 0, 0] = 40.6, 700.0
    return Doubt.of(hu > 20, hu, 20.0)


def test_written_doubt_is_read_again(tmp_path: Path) -> None:
    path = write_doubt(tmp_path, _doubt())

    read = read_doubt(tmp_path)

    assert path.name == DOUBT_FILE
    assert read is not None
    assert read.limit_hu == 20.0
    assert read.doubt_hu[1, 2, 3] == 41
    assert read.doubt_hu[2, 0, 0] == 255  # clipped, not wrapped
    assert np.argwhere(read.mask).tolist() == [[1, 2, 3], [2, 0, 0]]


def test_same_doubt_gives_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    one, two = (write_doubt(tmp_path / name, _doubt()).read_bytes() for name in ("a", "b"))

    assert one == two


def test_no_file_is_no_doubt(tmp_path: Path) -> None:
    assert read_doubt(tmp_path) is None


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_cut_file_is_damaged(tmp_path: Path, keep: int) -> None:
    path = write_doubt(tmp_path, _doubt())
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(ValueError, match="damaged"):
        read_doubt(tmp_path)


def test_file_with_changed_content_is_damaged(tmp_path: Path) -> None:
    path = write_doubt(tmp_path, _doubt())
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF  # in the compressed mask
    path.write_bytes(data)

    with pytest.raises(ValueError, match="damaged"):
        read_doubt(tmp_path)


def test_other_shape_of_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Doubt.of(np.zeros((2, 4, 5), bool), np.zeros((3, 4, 5), np.float32), 20.0)
