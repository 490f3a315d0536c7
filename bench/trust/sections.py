"""The figures of one bundle by section; each function measures one of them and draws nothing."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from bench.derive import Image
from bench.trust.cases import TEACHING, Bundle, Case
from models.doubt import doubtful, limit_hu
from models.evaluation.attacks import ATTACKS, Attacked
from models.evaluation.continuity import DROPOUT_HU, measure_track
from models.evaluation.doubted import Doubted, doubted_regions, is_marked
from models.evaluation.level import (
    LevelFit,
    LevelPatient,
    LevelRow,
    fit_level,
    measure_levels,
    measure_requests,
    measure_small_vessels,
)
from models.evaluation.regions import KINDS, RegionFile, RegionRow, auc, mean_or_nan, measure_regions, summarise_regions
from node.translate.composite import composite
from node.translate.native_contrast import find_native_contrast
from node.translate.quality import judge_result

REQUESTED_HU = (60.0, 100.0, 140.0, 180.0)
_KIND_WORDS = {"vessel": "vessels", "mass": "masses", "false": "false regions", "organ": "organs", "quiet": "quiet"}

Figures = dict[str, float]


def regions(bundle: Bundle, cases: Sequence[Case], named: RegionFile) -> Figures:
    """The region bench over all real series together."""
    found = summarise_regions(_rows(bundle, cases, named))
    figures = {f"{_KIND_WORDS[kind]}, mean change: HU": found[kind] for kind in KINDS}
    figures["mass and false, mean change: HU"] = found["wrong"]
    figures["mass and false, mean size of change: HU"] = found["wrong_size"]
    figures["mass and false / vessels"] = found["wrong_per_vessel"]
    figures["AUC of vessels over mass and false, regions"] = found["auc_regions"]
    figures["AUC of vessels over mass and false, pixels"] = found["auc_pixels"]
    return figures


def each_region(bundle: Bundle, cases: Sequence[Case], named: RegionFile) -> Figures:
    """The mean change of each region."""
    return {f"{row.region.kind}, {row.region.name}: HU": row.change_hu for row in _rows(bundle, cases, named)}


def _rows(bundle: Bundle, cases: Sequence[Case], named: RegionFile) -> list[RegionRow]:
    return [
        row
        for case in cases
        for row in measure_regions(case.volume.hu, bundle.result(case).hu, named.of(case.name).regions)
    ]


def continuity(bundle: Bundle, cases: Sequence[Case], named: RegionFile) -> Figures:
    """How evenly each track of each real series lights up."""
    figures: Figures = {}
    for case in cases:
        for track in named.of(case.name).tracks:
            row = measure_track(case.volume.hu, bundle.result(case).hu, track)
            name = f"{case.name.rpartition('/')[2]}, {track.name}"
            figures[f"{name}, RMS step: HU"] = row.rms_step_hu
            figures[f"{name}, slices under {DROPOUT_HU:g} HU of {len(row.changes_hu)}"] = row.dropouts
            figures[f"{name}, mean change: HU"] = row.mean_hu
            figures[f"{name}, least change: HU"] = min(row.changes_hu)
    return figures


def level(bundle: Bundle, patients: Sequence[LevelPatient], shoulders: Sequence[LevelPatient]) -> Figures:
    """Blood of phantoms: bias, false enhancement, predicted over true level, and over asked level if one is taken.

    Of those in `shoulders` the small vessels are measured.
    """
    window = bundle.card.hu_window
    rows = measure_levels(patients, bundle.translate, window, takes_level=bundle.takes_level)
    figures: Figures = {}
    for hospital, group in groupby(sorted(rows, key=lambda row: row.hospital, reverse=True), lambda row: row.hospital):
        figures |= _of_hospital(hospital, list(group))
    # Teaching patients differ in far more than their level, which would look like a slope.
    figures |= _of_line("true level", [row for row in rows if row.hospital != TEACHING])
    shares = measure_small_vessels(shoulders, bundle.translate, window, takes_level=bundle.takes_level)
    figures[f"small vessels of {len(shares)} shoulders, predicted / true"] = mean_or_nan(shares)
    if bundle.takes_level:
        asked = measure_requests(patients[:: max(1, len(patients) // 6)], bundle.translate, window, REQUESTED_HU)
        figures |= _of_line("requested level", asked)
    return figures


def attacks(bundle: Bundle, cases: Sequence[Case]) -> Figures:
    """In which share of the series the gates hold each gross manipulation, and the results as they are."""
    clean: list[float] = []
    held: dict[str, list[float]] = {name: [] for name in ATTACKS}
    for case in cases:
        result = bundle.result(case).hu
        clean.append(_is_held(bundle, case, result))
        attacked = Attacked(result, case.volume.hu, case.volume.spacing_mm, case.labels)
        for number, (name, attack) in enumerate(ATTACKS.items()):
            held[name].append(_is_held(bundle, case, attack(attacked, np.random.default_rng(number))))
    return {
        f"clean results held, share of {len(cases)}": mean_or_nan(clean),
        "attacks held, share of all": mean_or_nan([one for found in held.values() for one in found]),
        **{f"attack held, share of {len(cases)}: {name}": mean_or_nan(found) for name, found in held.items()},
    }


def doubt(bundle: Bundle, cases: Sequence[Case], named: RegionFile) -> Figures:
    """What the second look marks on the real series: regions that light wrongly, vessels, and its time."""
    limit = limit_hu(bundle.loaded.level_hu)
    wrong, vessels, circles = list[Doubted](), list[Doubted](), list[bool]()
    figures: Figures = {}
    for case in cases:
        looks, of_case = bundle.looks(case), named.of(case.name)
        source_hu, doubt_hu = case.volume.hu, looks.doubt_hu(case)
        mask = doubtful(doubt_hu, limit, case.volume.spacing_mm)
        lit_wrongly, lit = doubted_regions(source_hu, looks.first_hu, doubt_hu, mask, of_case.regions)
        wrong, vessels = wrong + lit_wrongly, vessels + lit
        circles += [is_marked(source_hu, mask, circle) for track in of_case.tracks for circle in track.circles]
        found = looks.figures(case, bundle.loaded.level_hu)
        name = case.name.rpartition("/")[2]
        figures[f"{name}, share of brightened tissue that is doubtful"] = found.doubtful_share
        figures[f"{name}, doubtful volume, mL"] = found.doubtful_ml
    figures["wrongly lit regions"] = len(wrong)
    if wrong:  # a model that lights nothing wrongly has nothing that could be marked
        figures["wrongly lit regions marked, share of all"] = mean_or_nan([one.marked for one in wrong])
        figures["AUC of doubt, wrongly lit regions over vessels"] = auc(
            [one.doubt_hu for one in wrong], [one.doubt_hu for one in vessels]
        )
    figures["vessels marked, share of all"] = mean_or_nan([one.marked for one in vessels])
    figures["circles of tracks marked, share of all"] = mean_or_nan(circles)
    figures["time, second look / translation"] = mean_or_nan([bundle.cost(case) for case in cases])
    return figures


def _is_held(bundle: Bundle, case: Case, result_hu: Image) -> float:
    """1 where the gates hold a result, after the composite of a job: what lies outside the window never changes."""
    made = composite(case.volume, result_hu, bundle.card.hu_window)
    return float(judge_result(case.volume, result_hu, made, level_hu=bundle.level_hu).reason is not None)


def input_doubts(cases: Sequence[Case]) -> list[str]:
    """Sources that would be held already, whatever comes out of them."""
    found = {case.name: find_native_contrast(case.volume) for case in cases}
    return [f"{name}: {one.reason}" for name, one in found.items() if one.is_enhanced]


def _of_hospital(hospital: str, rows: Sequence[LevelRow]) -> Figures:
    return {
        f"{hospital}, blood bias: HU": mean_or_nan([row.predicted_hu - row.expected_hu for row in rows]),
        f"{hospital}, blood MAE of patients: HU": mean_or_nan(
            [abs(row.predicted_hu - row.expected_hu) for row in rows]
        ),
        f"{hospital}, false enhancement: HU": mean_or_nan([row.false_hu for row in rows]),
    }


def _of_line(what: str, rows: Sequence[LevelRow]) -> Figures:
    fit: LevelFit = fit_level([row.expected_hu for row in rows], [row.predicted_hu for row in rows])
    return {
        f"slope against the {what}": fit.slope,
        f"slope against the {what}, 95 % from": fit.slope_low,
        f"slope against the {what}, 95 % to": fit.slope_high,
        f"intercept against the {what}: HU": fit.intercept_hu,
        f"variance predicted over {what}": fit.variance_ratio,
    }
