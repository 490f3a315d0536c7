"""What must hold in the derived series of the field cases, beyond the state that they end in."""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from scipy.ndimage import median_filter

from node.dicom.content import COPIED
from node.dicom.elements import element_bytes, tag_of, vr_of
from storage.overview import Case
from tests.field.cases import Pushable
from tests.slice.checks import WINDOW_HU
from tests.slice.harness import StoreScp

TEXT_VRS = {"PN", "LO", "SH", "ST", "LT", "UT", "UI", "DS", "IS", "CS", "DA", "TM", "DT", "AS"}
DOT_HU = 30.0

Derived = dict[str, list[Dataset]]


def derived_by_series(tps: StoreScp, cases: Iterable[Case]) -> Derived:
    """What of these cases lies at the TPS, by its SeriesInstanceUID."""
    wanted = {case.derived_series_uid for case in cases}
    found: Derived = defaultdict(list)
    for path in tps.files():
        dataset = dcmread(path)
        if dataset.SeriesInstanceUID in wanted:
            found[dataset.SeriesInstanceUID].append(dataset)
    return found


def assert_clean(made: Pushable, derived: Derived) -> None:
    """Text and geometry are the source's bytes, and dciodvfy has nothing to say that it does not say of the source."""
    sources = _sources(made)
    assert derived
    said_before = {line for path in made.files() for line in _errors(path)}
    for dataset in (one for group in derived.values() for one in group):
        source = sources[_source_uid(dataset)]
        for keyword, _ in COPIED:
            tag = tag_of(keyword)
            if vr_of(tag) in TEXT_VRS and tag in dataset:
                assert element_bytes(dataset, tag) == (element_bytes(source, tag) or b""), keyword
        new = {line for line in _errors(Path(str(dataset.filename))) if line not in said_before}
        assert not new


def assert_tellable_apart(derived: Derived) -> None:
    """No two results at the TPS bear the same description and number."""
    names = [(group[0].SeriesDescription, group[0].SeriesNumber) for group in derived.values()]
    assert len(set(names)) == len(names), names
    assert len({description for description, _ in names}) == len(names), names
    assert len({number for _, number in names}) == len(names), names


def assert_pixels_of_truth(truth: Path, derived: Derived) -> None:
    """Outside the window the derived pixels are those of the uncompressed source."""
    known = {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, truth.rglob("*.dcm"))}
    checked = 0
    for dataset in (one for group in derived.values() for one in group):
        source = known[_source_uid(dataset)]
        before, after = _hu(source), _hu(dataset)
        outside = (before < WINDOW_HU[0]) | (before > WINDOW_HU[1])
        assert np.array_equal(before[outside], after[outside])
        checked += 1
    assert checked


def assert_no_black_dots(made: Pushable, derived: Derived) -> None:
    """No pixel of tissue that has the padding value by chance is left behind where all around it has changed."""
    sources = _sources(made)
    assert derived
    for dataset in (one for group in derived.values() for one in group):
        source = sources[_source_uid(dataset)]
        change = _hu(dataset) - _hu(source)
        around = median_filter(change, 5)
        left_behind = (source.pixel_array == source.PixelPaddingValue) & (np.abs(change - around) > DOT_HU)
        assert np.count_nonzero(left_behind & (change == 0) & (np.abs(around) > DOT_HU)) == 0
        assert np.count_nonzero((dataset.pixel_array == source.PixelPaddingValue) & (change != 0)) == 0


def assert_corners_unchanged(made: Pushable, derived: Derived) -> None:
    """What lies outside the circle of the field of view is the source's, though its value is that of water."""
    sources = _sources(made)
    assert derived
    for dataset in (one for group in derived.values() for one in group):
        y, x = np.ogrid[: dataset.Rows, : dataset.Columns]
        outside = (y - dataset.Rows / 2) ** 2 + (x - dataset.Columns / 2) ** 2 > (dataset.Columns / 2 + 2) ** 2
        assert np.array_equal(_hu(dataset)[outside], _hu(sources[_source_uid(dataset)])[outside])


def assert_local_time(derived: Derived, zone: ZoneInfo) -> None:
    """The result was made within the last minutes by the clock of the site."""
    assert derived
    for dataset in (one for group in derived.values() for one in group):
        made = datetime.strptime(dataset.SeriesDate + dataset.SeriesTime, "%Y%m%d%H%M%S").replace(tzinfo=zone)
        assert timedelta() <= datetime.now(zone) - made < timedelta(minutes=10)


def _sources(made: Pushable) -> dict[str, Dataset]:
    return {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, made.files())}


def _source_uid(dataset: Dataset) -> str:
    return str(dataset.SourceImageSequence[0].ReferencedSOPInstanceUID)


def _hu(dataset: Dataset) -> NDArray[np.float64]:
    return np.asarray(dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept))


def _errors(path: Path) -> set[str]:
    """dciodvfy's errors of one file, without the values that differ from slice to slice."""
    program = str(Path(sys.executable).with_name("dciodvfy"))
    answer = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = (answer.stdout + answer.stderr).splitlines()
    return {re.sub(r"<[^>]*>", "<>", line) for line in lines if line.startswith("Error")}
