"""The inputs made after public bug reports: how each is made and pushed, and what is right at its end."""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydicom import dcmread

from node.dicom.constants import CT_IMAGE_STORAGE
from tests.slice.harness import dcmtk

Expected = dict[str, Any]

# `expect.json` leaves these open; the decisions and their reasons stand in docs/reference/input.md.
DECIDED: dict[str, Expected] = {
    "a2_rescaletype_us": {"states": ["SKIPPED"]},
    "h1_types_ordinary": {"states": ["SENT", "SKIPPED"]},
    "h5_mar": {"states": ["HELD"]},
    "h6_localizer_inside": {"states": ["SKIPPED"]},
    "i3_oral_only": {"states": ["SKIPPED"]},
    "l4_two_patients_one_study": {"states": ["SENT", "HELD"]},
    "n3_large_fov": {"states": ["SENT"]},
    "p4_body_part": {"states": ["HELD"]},
    "r2_timezone": {"states": ["SENT"]},
}


@dataclass(frozen=True)
class FieldCase:
    """One case: its generator, and `expected` by `expect.json` or by decision."""

    name: str
    script: Path
    expected: Expected

    def make(self, folder: Path) -> "Pushable":
        """Write the files of the case below `folder`."""
        module = _load(self.script)
        module.make(folder)
        steps = getattr(module, "STEPS", None) or [{"files": "**/*.dcm"}]
        return Pushable(folder, steps)


@dataclass(frozen=True)
class Pushable:
    """The files of a case and the steps in which they are pushed."""

    folder: Path
    steps: list[dict[str, Any]]

    def files(self) -> list[Path]:
        """All files that are pushed, in their order."""
        return [path for step in self.steps for path in sorted(self.folder.glob(step["files"]))]

    def ct_series(self) -> dict[str, list[Path]]:
        """The files of every CT series that is pushed, by SeriesInstanceUID; a page of a report is none."""
        found: dict[str, list[Path]] = {}
        for path in self.files():
            header = dcmread(path, specific_tags=["SOPClassUID", "SeriesInstanceUID", "ImageType"])
            if header.SOPClassUID == CT_IMAGE_STORAGE and "SCREEN SAVE" not in header.ImageType:
                found.setdefault(str(header.SeriesInstanceUID).strip(), []).append(path)
        return found

    def push(self, port: int, calling_ae: str, wait_for_result: Callable[[], None]) -> list[int]:
        """Do every step; the exit codes of all send jobs."""
        codes = []
        for step in self.steps:
            files = sorted(self.folder.glob(step["files"]))
            batches = [[path] for path in files] if step.get("each") else [files]
            codes += [_storescu(port, calling_ae, batch, step.get("opts", [])) for batch in batches]
            if step.get("wait"):
                wait_for_result()
            time.sleep(step.get("sleep", 0) if step is not self.steps[-1] else 0)  # the pause is the case
        return codes


def field_cases(root: Path) -> list[FieldCase]:
    """Every case, in the order of their names."""
    expected = json.loads((root / "expect.json").read_text()) | DECIDED
    scripts = sorted(path for path in (root / "cases").glob("*.py") if not path.name.startswith("_"))
    return [FieldCase(path.stem, path, expected[path.stem]) for path in scripts]


def _storescu(port: int, calling_ae: str, files: list[Path], options: list[str]) -> int:
    command = [dcmtk("storescu"), "-aet", calling_ae, "-aec", "SYNCECT", *options, "127.0.0.1", str(port)]
    return subprocess.run([*command, *map(str, files)], capture_output=True, check=False).returncode


def _load(script: Path) -> ModuleType:
    """A generator as a module; the cases import each other by name."""
    if str(script.parent) not in sys.path:
        sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
