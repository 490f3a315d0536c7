"""`syncect process --companions`: the objects beside the images, in a folder of their own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from node.cli.commands import app
from node.dicom.companions.kinds import KINDS
from node.errors import Refused
from node.translate.job import DerivedFile, JobResult
from tests.derived import derived_series


class Executor:
    """Gives one derived series for whatever it gets."""

    bundle, description = "demo", "nothing at all"

    def __init__(self, folder: Path, held_reason: str | None = None) -> None:
        self.made, self.held_reason = derived_series(folder), held_reason

    def run(self, _paths: Any, _options: Any, out_dir: Path, _progress: Any) -> JobResult:
        shutil.copytree(self.made.folder, out_dir, dirs_exist_ok=True)
        files = tuple(DerivedFile("1.2", "1.3", path, "0" * 64) for path in sorted(out_dir.glob("*.dcm")))
        series_uid = str(self.made.slices[0].SeriesInstanceUID)
        return JobResult(series_uid, "1.4", files, self.held_reason, {"native_enhanced_ml": 3.5})


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("node.cli.offline._eligible", lambda *_: ([], ""))

    def run(*options: str, held_reason: str | None = None) -> Any:
        monkeypatch.setattr("node.cli.offline.open_executor", lambda _model: Executor(tmp_path / "made", held_reason))
        arguments = ["process", str(tmp_path), "--out", str(tmp_path / "out"), "--json", *options]
        (tmp_path / "node.toml").write_text('[node]\ndata_dir = "data"\n')
        return CliRunner().invoke(app, ["--config", str(tmp_path / "node.toml"), *arguments])

    return run


def test_they_are_made_of_what_was_made(process: Any, tmp_path: Path) -> None:
    answer = process("--companions")
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert told["companions"] == [str(tmp_path / "out" / "companions" / f"{kind}.dcm") for kind in KINDS]
    found = {dcmread(path).SOPClassUID for path in told["companions"]}
    assert found == {kind.sop_class_uid for kind in KINDS.values()}
    assert b"native_enhanced_ml" in (tmp_path / "out" / "companions" / "report.dcm").read_bytes()


def test_without_the_option_and_of_a_held_result_there_are_none(process: Any, tmp_path: Path) -> None:
    assert json.loads(process().stdout)["companions"] == []
    assert not (tmp_path / "out" / "companions").exists()
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "made")
    answer = process("--companions", held_reason="looks enhanced")
    assert isinstance(answer.exception, Refused)
    assert not (tmp_path / "out").exists()
