"""The chapters that measure the model: evaluation, agreement by structure, regions on real scans, dose."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.ticker import MaxNLocator

from models.dose.anatomy import NoBreastFields
from models.dose.beam import ATTENUATION_PER_MM, BUILD_UP_PER_MM, KERNEL_MM, STEP_MM
from models.dose.compare import LEVELS_PERCENT, DoseComparison, compare
from models.dose.density import SOURCE
from models.dose.gamma import CUTOFF, DISTANCE_MM, FRACTION
from models.evaluation import Report, Row
from models.evaluation.continuity import DROPOUT_HU, measure_track
from models.evaluation.measure import PatientFigures
from models.evaluation.regions import KINDS, RegionFile, measure_regions, summarise_regions
from models.evaluation.tables import Cell, Table
from node.commission.parts import Picture, Section, new_figure, number, picture, table
from node.commission.subjects import Made

_ROWS: Final = ("psnr_db", "ssim", "nmae", "false_enhancement_mae_hu", "contrast_gain")
_KIND_WORDS: Final = {
    "vessel": "vessels (should light)",
    "mass": "masses, effusions (should not)",
    "false": "muscle, bowel (should not)",
    "organ": "organs (may, evenly)",
    "quiet": "quiet tissue (should not)",
}


def evaluation(report: Report, where: str, model: str) -> Section:
    """The bundle beside the two rows that know no model."""
    rows = [
        (
            row.cohort.replace("_", " "),
            row.name.replace("_", " "),
            str(row.patients),
            *(
                number(row.means[key], form)
                for key, form in zip(_ROWS, (".2f", ".4f", ".5f", ".2f", ".3f"), strict=True)
            ),
            _blood(row),
        )
        for row in report.rows
    ]
    columns = (
        "cohort",
        "row",
        "patients",
        "PSNR [dB]",
        "SSIM",
        "NMAE",
        "false enh. [HU]",
        "contrast gain",
        "blood MAE [HU]",
    )
    return Section(
        "Evaluation",
        (
            where,
            f"The row {model} is the bundle. The row identity returns the plain scan unchanged; mean enhancement adds "
            "what the training patients of the cohort gain on average at the same brightness and place. A "
            "bundle that is "
            "not better than both has no use. Cohorts in register are held against a second scan of the same position; "
            "misregistered ones against the scan as it was taken, so that motion counts as error in every row.",
        ),
        (table("Image similarity and enhancement", columns, rows, "Means over slices, or over patients."),),
    )


def agreement(report: Report, model: str) -> Section:
    """Bland and Altman by structure: the bundle's mean HU against the second scan's."""
    figures = [one for one in report.figures if one.name == model and not one.cohort.endswith("_misregistered")]
    names = list(dict.fromkeys(name for one in figures for name in one.structures))
    rows: list[Sequence[Cell]] = []
    for name in names:
        found = [one.structures[name] for one in figures if name in one.structures]
        difference = np.array([one.mean_prediction_hu - one.mean_truth_hu for one in found])
        mean = float(difference.mean())
        sd = float(difference.std(ddof=1)) if len(found) > 1 else math.nan
        limits = f"{mean - 1.96 * sd:.1f} to {mean + 1.96 * sd:.1f}" if len(found) > 1 else "-"
        voxels = sum(one.voxels for one in found)
        rows.append((name.replace("_", " "), len(found), voxels, f"{mean:.1f}", number(sd, ".1f"), limits))
    columns = ("structure", "patients", "voxels", "bias [HU]", "SD [HU]", "limits of agreement [HU]")
    text = (
        "Each point is one patient: the mean HU of a structure in the result minus that in the registered second scan, "
        "over their mean. Limits of agreement: bias +- 1.96 SD of the patients (Bland and Altman, Lancet 1986). "
        "With few "
        "patients these limits are wide guesses; commission on as many patients as the department has.",
    )
    if not rows:
        return Section("Agreement by structure", ("The cohort has no labels, so nothing can be said by structure.",))
    listed = table("Result minus second scan by structure", columns, rows)
    return Section("Agreement by structure", text, (listed,), (_bland_altman(figures, names),))


def _bland_altman(figures: Sequence[PatientFigures], structures: Sequence[str]) -> Picture:
    """One plot for each structure of at least two patients."""
    names = [name for name in structures if sum(name in one.structures for one in figures) > 1] or structures[:1]
    across = 3
    down = math.ceil(len(names) / across)
    figure = new_figure(7.2, 1.75 * down + 0.3)
    for place, name in enumerate(names, 1):
        axis = figure.add_subplot(down, across, place)
        found = [one.structures[name] for one in figures if name in one.structures]
        difference = np.array([one.mean_prediction_hu - one.mean_truth_hu for one in found])
        axis.scatter([(one.mean_prediction_hu + one.mean_truth_hu) / 2 for one in found], difference, s=14)
        axis.axhline(0, color="0.75", linewidth=0.8)
        if len(found) > 1:
            mean, sd = float(difference.mean()), float(difference.std(ddof=1))
            axis.axhline(mean, color="tab:red", linewidth=1)
            for limit in (mean - 1.96 * sd, mean + 1.96 * sd):
                axis.axhline(limit, color="tab:red", linewidth=0.8, linestyle="--")
        axis.set_title(name.replace("_", " "), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.locator_params(nbins=4)
    figure.supxlabel("mean of result and second scan [HU]", fontsize=8)
    figure.supylabel("result - second scan [HU]", fontsize=8)
    figure.tight_layout(pad=0.6)
    return picture(figure, "Bland-Altman plots. Solid red: bias; dashed: limits of agreement.")


def regions(made: Sequence[Made], named: RegionFile) -> Section:
    """What lights up on real scans, and whether vessels do so evenly."""
    rows = [
        row
        for one in made
        for row in measure_regions(one.source.hu, one.derived.hu, named.of(one.subject.name).regions)
    ]
    found = summarise_regions(rows)
    counts = {kind: sum(row.region.kind == kind for row in rows) for kind in KINDS}
    kinds = [(_KIND_WORDS[kind], counts[kind], number(found[kind], ".1f")) for kind in KINDS]
    tracks = []
    for one in made:
        for track in named.of(one.subject.name).tracks:
            row = measure_track(one.source.hu, one.derived.hu, track)
            name = one.subject.name.rpartition("/")[2]
            figures = (number(row.mean_hu, ".1f"), number(row.rms_step_hu, ".1f"), row.dropouts)
            tracks.append((name, track.name, len(row.changes_hu), *figures))
    auc = f"{number(found['auc_regions'])} over regions, {number(found['auc_pixels'])} over pixels"
    return Section(
        "Regions on real scans",
        (
            "Mean change (result minus source) inside circles that a person placed. Contrast agent lights vessels; "
            f"masses, muscle and bowel should stay. Vessels light more than these (AUC): {auc}; 1 is perfect, "
            f"0.5 is chance.",
        ),
        (
            table("Change by kind of region", ("kind", "regions", "mean change [HU]"), kinds),
            table(
                "Evenness along vessels",
                ("series", "vessel", "slices", "mean change [HU]", "RMS step [HU]", f"slices under {DROPOUT_HU:g} HU"),
                tracks,
            ),
        ),
    )


def dose(made: Sequence[Made]) -> Section:
    """Two tangents on the plain scan and on the result: how much would a plan differ?"""
    tables: list[Table] = []
    pictures: list[Picture] = []
    failed: list[str] = []
    for one in made:
        plain, result, spacing_mm = one.turned()
        others = {"sCECT": result} | ({"CECT": one.subject.cect_hu} if one.subject.cect_hu is not None else {})
        name = one.subject.name.rpartition("/")[2]
        try:
            found = compare(plain, others, spacing_mm, one.structures())
        except NoBreastFields as error:
            failed.append(f"{name}: no fields could be laid: {error}.")
            continue
        tables += _dose_tables(name, found)
        pictures.append(_dose_picture(name, found))
    return Section("Dose", (*_dose_words(), *failed), tuple(tables), tuple(pictures))


def _dose_words() -> tuple[str, ...]:
    return (
        "This chapter compares two CTs under one simple algorithm. It is no clinical dose, and nothing in it "
        "may be used "
        "for treatment. It answers one question: how far would dose calculated on the result differ from dose "
        "calculated "
        "on the plain scan?",
        "Fields: two opposed parallel tangents of the left breast (of the right one where no left lung is "
        "seen), in the "
        "transverse plane, along the line from the skin 10 mm beside the midline to the skin at the side "
        "half-way between "
        "front and back. Both share one posterior border, which leaves at most 20 mm of lung in the field. No "
        "divergence, "
        "no wedge, no collimator.",
        f"Density: {SOURCE}. Water-equivalent depth is the sum of density along the ray. Dose in a voxel: "
        f"exp(-{ATTENUATION_PER_MM:g} d) - exp(-{BUILD_UP_PER_MM:g} d), d in mm of water, largest at 15 mm; then a "
        f"Gaussian of {KERNEL_MM:g} mm in water, up to three times wider in low density. Grid: {STEP_MM:g} mm "
        f"in the plane, "
        "the slices' distance along z. Both fields are summed. All doses are in percent of that on the plain "
        "scan at one "
        "point in the breast: equal monitor units.",
        f"Gamma: {FRACTION:.0%} of the largest dose, {DISTANCE_MM:g} mm, global, voxels from {CUTOFF:.0%} on. "
        f"Iodine, real "
        "or drawn, raises HU far more than electron density, so that the density of lit vessels is overstated on both "
        "enhanced scans. A true second scan has noise of its own, which the result, made of the source, has not.",
    )


def _dose_tables(name: str, found: DoseComparison) -> list[Table]:
    columns = (
        *("scan", "structure", "plain mean [%]", "mean diff. [%]", "SD [%]", "largest [%]", "depth diff. [mm]"),
        "near-max, plain / other [%]",
    )
    rows = [
        (
            scan,
            row.structure,
            f"{row.plain_mean_percent:.1f}",
            f"{row.mean_percent:+.2f}",
            f"{row.sd_percent:.2f}",
            f"{row.largest_percent:.2f}",
            f"{row.depth_mm:+.2f}",
            "{:.1f} / {:.1f}".format(*row.near_max_percent),
        )
        for scan, one in found.scans.items()
        for row in one.rows
    ]
    passed = "; ".join(
        f"{scan}: gamma passes {one.gamma_passing:.1%}, mean {one.gamma_mean:.3f}" for scan, one in found.scans.items()
    )
    fields = found.fields
    note = (
        f"{passed}. {fields.side.capitalize()} breast, {fields.slices[1] - fields.slices[0]} slices, fields turned "
        f"{fields.gantry_deg:.0f} degrees. Differences: other scan minus plain scan, in percent of the dose at "
        f"the point."
    )
    return [table(f"Dose, {name}", columns, rows, note)]


def _dose_picture(name: str, found: DoseComparison) -> Picture:
    z = found.fields.point_zyx[0]
    scans = list(found.scans.items())
    figure = new_figure(7.2, 2.5)
    box = _box(found.density[z])
    panels = [
        ("density of the plain scan", found.density[z], "gray", (0.0, 1.4)),
        ("dose [%]", found.dose[z], "inferno", (0, 120)),
    ]
    panels += [
        (f"{scan} - plain [%]", one.dose[z] - found.dose[z], "RdBu_r", _evenly(one.dose[z] - found.dose[z]))
        for scan, one in scans[:1]
    ]
    for place, (title, image, colours, (low, high)) in enumerate(panels, 1):
        axis = figure.add_subplot(1, 4, place)
        shown = axis.imshow(image[box].T, origin="lower", cmap=colours, vmin=low, vmax=high)
        axis.set_title(title, fontsize=7)
        axis.set_xticks([])
        axis.set_yticks([])
        bar = figure.colorbar(shown, ax=axis, orientation="horizontal", fraction=0.05, pad=0.03)
        bar.ax.tick_params(labelsize=6)
        bar.locator = MaxNLocator(4)
        bar.update_ticks()
    axis = figure.add_subplot(1, 4, 4)
    for number_, row in enumerate(scans[0][1].rows[:3]):
        colour = f"C{number_}"
        axis.plot(
            LEVELS_PERCENT, row.volume_percent[0], color=colour, linewidth=1, label=row.structure.split(" in ")[0]
        )
        axis.plot(LEVELS_PERCENT, row.volume_percent[1], color=colour, linewidth=1, linestyle="--")
    axis.legend(fontsize=5.5, loc="lower left", frameon=False)
    axis.set_title("volume [%] over dose [%]", fontsize=7)
    axis.tick_params(labelsize=6)
    figure.tight_layout(pad=0.5)
    return picture(
        figure,
        f"{name}, the slice of the point, seen along the fields: beams run left and right, the breast is up. "
        f"Histogram: "
        f"solid plain scan, dashed {scans[0][0]}.",
    )


def _evenly(difference: np.ndarray) -> tuple[float, float]:
    """Limits of a colour scale with white in its middle."""
    reach = max(float(np.abs(difference).max()), 0.1)
    return -reach, reach


def _box(density: np.ndarray) -> tuple[slice, slice]:
    inside = [np.flatnonzero((density > 0.1).any(axis=axis)) for axis in (1, 0)]
    return slice(int(inside[0][0]), int(inside[0][-1]) + 1), slice(int(inside[1][0]), int(inside[1][-1]) + 1)


def _blood(row: Row) -> str:
    blood = row.structures.get("blood_pool")
    return "-" if blood is None else f"{blood.mae_hu:.1f}"
