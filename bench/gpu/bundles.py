"""The shipped bundles as a node uses them.

Seconds a series and of the second look, errors against the CPU in HU, and two bundles of one process in turn.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.tools import SEED, SLICES_MM, peak_gb, phantom_slices, shipped, tidy, time_calls, translator
from models.translator import Precision, Translator

COMPARED_SLICES = 4
FP32_HU = 0.5
FP32_WHY = "pixels are whole HU; rounding may move one by one"
BF16_HU = 15.0
BF16_WHY = "the gate of models.evaluation.precision, which compares with fp32"


def bundles(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Times first: the simulation of many scanners needs them."""
    for name in size.node_bundles:
        for precision in size.precisions:
            if section.has_time_for(f"{name}, {precision}", seconds=8 * size.seconds_each):
                _times(section, name, precision, device, size)
    if len(size.node_bundles) > 1 and section.has_time_for("two bundles in turn", seconds=10 * size.seconds_each):
        _in_turn(section, device, size)
    for name in size.node_bundles:
        if section.has_time_for(f"{name} against the CPU", seconds=COMPARED_SLICES if device == "cuda" else 1):
            _errors(section, name, device, size)


def _times(section: Section, name: str, precision: Precision, device: str, size: Size) -> None:
    tidy(device)
    hu = phantom_slices(size.shared_slices, size.rows)
    loaded = translator(shipped(name), device, precision, size.batch)
    looks = {
        "translate": partial(loaded.translate, hu, SEED, spacing_mm=SLICES_MM),
        "second look": partial(loaded.second_look, hu, SEED, spacing_mm=SLICES_MM),
    }
    taken = {what: time_calls(look, device, seconds=0, warm_up=1, least=2) for what, look in looks.items()}
    for what, timing in taken.items():
        section.row(
            figure=f"{what}, alone",
            value=timing.least_s,
            bundle=name,
            precision=precision,
            batch=size.batch,
            slices=size.shared_slices,
            **peak_gb(device),
        )
    ratio = taken["second look"].least_s / taken["translate"].least_s
    section.row(figure="second look / translation", value=ratio, bundle=name, precision=precision)


def _in_turn(section: Section, device: str, size: Size) -> None:
    """Two loaded bundles that take turns, against each of them going on alone."""
    hu, pair = phantom_slices(size.shared_slices, size.rows), list[Translator]()
    tidy(device)
    for name in size.node_bundles:
        pair.append(translator(shipped(name), device, size.precisions[0], size.batch))
        _translate(pair[-1], hu)
        section.row(figure="bundles held in one process", count=len(pair), added=name, **peak_gb(device))
    alone = [time_calls(partial(_translate, one, hu), device, seconds=0, warm_up=1).least_s for one in pair]

    def in_turn() -> None:
        for one in pair:
            _translate(one, hu)

    both = time_calls(in_turn, device, seconds=0, warm_up=1).least_s
    section.row(figure="two bundles in turn", value=both, sum_of_each_alone_s=sum(alone), slices=size.shared_slices)


def _translate(loaded: Translator, hu: NDArray[np.float32]) -> None:
    loaded.translate(hu, SEED, spacing_mm=SLICES_MM)


def _errors(section: Section, name: str, device: str, size: Size) -> None:
    """Both looks of the device against fp32 on the CPU, one slice at a time."""
    hu = phantom_slices(COMPARED_SLICES, size.rows)
    exact = translator(shipped(name), "cpu", "fp32", 1).translate(hu, SEED, spacing_mm=SLICES_MM)
    for precision in size.precisions:
        found = translator(shipped(name), device, precision, size.batch).translate(hu, SEED, spacing_mm=SLICES_MM)
        error = np.abs(found - exact)
        figure = f"bundle {name}, {precision} on {device} against fp32 on cpu"
        section.row(figure=figure, mean_hu=float(error.mean()), max_hu=float(error.max()))
        limit, why = (FP32_HU, FP32_WHY) if precision == "fp32" else (BF16_HU, BF16_WHY)
        section.check(f"{figure}: max, HU", float(error.max()), limit, why)
