"""The list of series of an archive: what is read from it, and the sentence and row for what cannot be used."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from node.archive.index import Entry, read_index
from node.errors import Misconfigured


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"folder": ["/a"]}, "no column `source`"),
        ({"source": [1]}, "holds int64 and no text"),
        ({"source": pa.array([], pa.string())}, "no row"),
        ({"source": ["/a", ""]}, "row 2 of the index has no source"),
        ({"source": ["/a", "/a"]}, "row 2 of the index names a series that an earlier row names already"),
        ({"source": ["/a", "/a/"]}, "row 2 of the index names a series that an earlier row names already"),
        ({"source": ["/a", "file:///b/../a"]}, "row 2 of the index names a series that an earlier row names already"),
        (
            {"source": ["s3://arch/a/", "s3://arch/a"]},
            "row 2 of the index names a series that an earlier row names already",
        ),
        ({"source": pa.array([None, None])}, "row 1 of the index has no source"),
        ({"source": ["/a", "b/c"]}, "row 2 of the index has a source that is no place"),
        ({"source": ["https://host/a"]}, "row 1 of the index has a source that is no place"),
        ({"source": ["s3://UPPER"]}, "row 1 of the index has a source that is no place"),
        ({"source": ["/a"], "series_uid": ["1.2\n3"]}, "row 1 of the index has a series_uid that is no UID"),
        ({"source": ["/a"], "study_uid": [".."]}, "row 1 of the index has a study_uid that is no UID"),
        ({"source": ["dicomweb:pacs"], "series_uid": ["1.2.3"]}, "row 1 .* lacks study_uid or series_uid"),
    ],
)
def test_an_index_that_cannot_be_used_is_refused_with_its_row(tmp_path: Path, columns: Any, why: str) -> None:
    path = tmp_path / "index.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(Misconfigured, match=why):
        read_index(path)


def test_text_is_read_from_every_kind_of_column_that_other_programs_write(tmp_path: Path) -> None:
    path, texts = tmp_path / "index.parquet", pa.array(["/a", "/b"])
    for column in (texts, texts.cast(pa.large_string()), texts.cast(pa.string_view()), texts.dictionary_encode()):
        pq.write_table(pa.table({"source": column, "series_uid": pa.array([None, None])}), path)
        assert read_index(path) == [Entry("/a"), Entry("/b")]


def test_what_is_no_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "index.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(Misconfigured, match="cannot be read as Parquet"):
        read_index(tmp_path / "index.parquet")


def test_reading_a_list_or_outcomes_starts_no_thread_that_would_abort_a_short_command(tmp_path: Path) -> None:
    pq.write_table(pa.table({"source": ["/a"]}), tmp_path / "index.parquet")
    (tmp_path / "read.py").write_text(
        "import os, sys\n"
        "from pathlib import Path\n"
        "from node.archive.index import read_index\n"
        "from node.archive.outcome import from_parquet\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "path = Path(sys.argv[1])\n"
        "counts = len(read_index(path)), len(from_parquet(path.read_bytes()))\n"
        "print(*counts, len(os.listdir('/proc/self/task')) - before)\n"
    )
    words = [sys.executable, str(tmp_path / "read.py"), str(tmp_path / "index.parquet")]
    found = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert found.stdout.split() == ["1", "1", "0"]
