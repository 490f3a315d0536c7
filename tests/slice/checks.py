"""What must hold between a source slice and the slice derived from it, checked with other people's eyes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import SimpleITK
from pydicom import Dataset

WINDOW_HU = (-40.0, 400.0)
GEOMETRY = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "FrameOfReferenceUID",
    "StudyInstanceUID",
    "PatientPosition",
)


def raw(dataset: Dataset, keyword: str) -> str:
    """The value as it stands in the file: decimal strings keep every character."""
    value = dataset[keyword].value
    parts = (
        value
        if isinstance(value, (list, tuple)) or (hasattr(value, "__iter__") and not isinstance(value, str))
        else [value]
    )
    return "\\".join(getattr(part, "original_string", None) or str(part) for part in parts)


def assert_derived_from(source: Dataset, derived: Dataset) -> None:
    for keyword in GEOMETRY:
        if keyword in source:
            assert raw(derived, keyword) == raw(source, keyword), keyword
    assert derived.SOPInstanceUID != source.SOPInstanceUID
    assert derived.SeriesInstanceUID != source.SeriesInstanceUID
    assert derived.SyntheticData == "YES"
    assert list(derived.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert derived.RescaleType == "HU"
    assert derived.get("Manufacturer") != source.get("Manufacturer")
    assert "not for dose" in derived.ImageComments.lower()
    assert not [element for element in derived if element.keyword.startswith("ContrastBolus")]
    assert not [element for element in derived if element.tag.is_private]
    before = source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)
    after = derived.pixel_array * float(derived.RescaleSlope) + float(derived.RescaleIntercept)
    outside = (before < WINDOW_HU[0]) | (before > WINDOW_HU[1])
    assert np.array_equal(before[outside], after[outside])


def assert_no_dciodvfy_errors(paths: list[Path]) -> None:
    """dciodvfy's exit code is not enough: some errors are printed with code 0."""
    program = str(Path(sys.executable).with_name("dciodvfy"))

    def errors(path: Path) -> list[str]:
        answer = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
        return [
            f"{path.name}: {line}" for line in (answer.stdout + answer.stderr).splitlines() if line.startswith("Error")
        ]

    with ThreadPoolExecutor(2) as pool:
        assert [line for lines in pool.map(errors, paths) for line in lines] == []


def assert_same_grid(source: Path, derived: Path) -> None:
    """SimpleITK places both series on the same grid."""
    first, second = _read(source), _read(derived)
    assert second.GetSize() == first.GetSize()
    assert second.GetOrigin() == first.GetOrigin()
    assert second.GetSpacing() == first.GetSpacing()
    assert second.GetDirection() == first.GetDirection()


def _read(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    return reader.Execute()
