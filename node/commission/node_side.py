"""The chapters that look at the node: identity, gates, delivered objects, timing, failure drills."""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from shutil import copy, copytree
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from pydicom import dcmread
from pydicom.multival import MultiValue
from scipy.ndimage import label

import models
from models.evaluation.attacks import ATTACKS, Attacked
from models.evaluation.tables import Cell
from models.translator import Translator
from node.commission.parts import Picture, Section, new_figure, picture, table
from node.commission.rtstruct import contours_of, overlay, read_structures, write_structures
from node.commission.subjects import Made, Spoiled, Subject, options
from node.dicom.quiet import quiet_pydicom
from node.translate.job import run_job
from node.version import software_version

_LIT_HU: Final = 40.0
_PACKAGES: Final = ("torch", "numpy", "scipy", "pydicom", "highdicom", "simpleitk")
_KEPT: Final = (
    *("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientPosition"),
    *("Rows", "Columns"),
)
_SHOWN: Final = (
    "SyntheticData",
    "ImageType",
    "ContentQualification",
    "Manufacturer",
    "SeriesDescription",
    "ImageComments",
)


def identity(translator: Translator) -> Section:
    """Which model, which software, which device."""
    card = translator.card
    rows: list[Sequence[Cell]] = [
        ("bundle", f"{card.name} {card.version}"),
        ("digest of the model", card.digest),
        ("SHA-256 of the weights", card.weights_sha256),
        ("method", card.method),
        ("intended use, as its card says", card.intended_use),
        (
            "level of blood",
            "each patient's own" if translator.level_hu is None else f"{translator.level_hu:g} HU, a convention",
        ),
        ("proven by its own card", models.why_unproven(card) or "better than identity and mean enhancement"),
        ("syncect", software_version()),
        ("runs on", translator.description),
        ("arithmetic", translator.arithmetic),
        ("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        ("libraries", ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)),
    ]
    limits = [(number, text) for number, text in enumerate(card.limits, 1)]
    tables = [table("What was commissioned", ("what", "value"), rows)]
    if limits:
        tables.append(table("Limits, as the card of the bundle says", ("", "limit"), limits))
    return Section(
        "Identity",
        (
            "This report is about exactly this model. A bundle with another digest needs a report of its own. After a "
            "change of device, driver or library the figures below may differ.",
        ),
        tuple(tables),
    )


def gates(made: Sequence[Made], translator: Translator, folder: Path) -> Section:
    """What the gates hold: the results as they are, and the first subject's with gross faults."""
    rows = [
        (
            one.subject.name.rpartition("/")[2],
            "HELD" if one.result.held_reason else "passed",
            one.result.held_reason or "",
        )
        for one in made
    ]
    held = sum(bool(one.result.held_reason) for one in made)
    caught = _attack(made[0], translator, folder)
    found = sum(reason != "" for _, reason in caught)
    attacked = [(name, "HELD" if reason else "NOT HELD", reason) for name, reason in caught]
    return Section(
        "Gates",
        (
            "Each series went through a whole job with all gates of the node. "
            f"Results as they are: {held} of {len(made)} were held for a person; "
            "each of them is a false hold where nothing is wrong with the scan.",
            f"Then the result of {made[0].subject.name} was spoiled grossly: "
            f"{found} of {len(caught)} spoiled results were held. "
            "What is not held here would reach the planning system.",
        ),
        (
            table("Results as they are", ("series", "outcome", "reason"), rows),
            table("Spoiled results", ("what was done to the result", "outcome", "reason"), attacked),
        ),
    )


def _attack(made: Made, translator: Translator, folder: Path) -> list[tuple[str, str]]:
    _, result, spacing_mm = made.turned()
    predicted = np.clip(result, *translator.card.hu_window)
    found = []
    looks: dict[str, np.ndarray] = {}
    for place, (name, attack) in enumerate(ATTACKS.items()):

        def spoil(
            one: np.ndarray, hu: np.ndarray, attack: Callable[..., np.ndarray] = attack, seed: int = place
        ) -> np.ndarray:
            low, high = translator.card.hu_window
            whole = np.where((hu >= low) & (hu <= high), one, hu)
            return attack(Attacked(whole, hu, spacing_mm, made.subject.labels), np.random.default_rng(seed))

        out = folder / f"attack-{place}"
        out.mkdir(parents=True)
        spoiled = Spoiled(translator, predicted, spoil, looks)
        done = run_job(made.subject.paths, spoiled, options(), out)
        found.append((name, done.held_reason or ""))
    return found


def delivered(made: Made, folder: Path) -> Section:
    """Geometry and identity of what is delivered, and a contour drawn on it that lies on the source."""
    source, derived = (one.slices for one in (made.source, made.derived))
    same = [
        (
            key,
            "equal"
            if all(a.dataset.get(key) == b.dataset.get(key) for a, b in zip(source, derived, strict=True))
            else "DIFFERENT",
        )
        for key in _KEPT
    ]
    positions = np.array([one.header.image_position_mm for one in source]) - [
        one.header.image_position_mm for one in derived
    ]
    same.append(("ImagePositionPatient, largest difference", f"{np.abs(positions).max():.4f} mm"))
    with quiet_pydicom():
        instance = dcmread(made.result.files[0].path, stop_before_pixels=True)
    shown = [(key, _words(instance.get(key, ""))) for key in _SHOWN]
    lit = _largest(made.derived.hu - made.source.hu > _LIT_HU)
    what = f"the largest piece that became more than {_LIT_HU:g} HU brighter"
    if lit.sum() < 50:
        lit, what = made.derived.hu > -300, "everything denser than -300 HU, since nothing lit up"
    path = folder / "structures.dcm"
    write_structures(path, "COMMISSION", contours_of(lit, made.derived), made.derived)
    found = overlay(read_structures(path), made.subject.folder, made.result.files[0].path.parent, lit)
    rows: list[Sequence[Cell]] = [
        ("contours, points", f"{found.contours}, {found.points}"),
        ("largest distance of a point in both series", f"{found.largest_mm:.1f} mm"),
        ("voxels inside, on the result", str(found.voxels)),
        ("voxels that differ between source and result", str(found.unequal_voxels)),
        ("voxels that differ from the mask that was drawn", str(found.unequal_to_drawn_voxels)),
    ]
    return Section(
        "Delivered objects",
        (
            "An RT Structure Set was drawn on the result and written as a DICOM file: "
            f"{what}. Its contours were read again and rasterised on the source and on the result, each of which "
            "SimpleITK read on its own. A planner's contours on the result therefore lie on the plain scan as well.",
        ),
        (
            table("Contour drawn on the result, laid over the source", ("figure", "value"), rows),
            table("Kept from the source, all slices", ("attribute", "result"), same),
            table("What every instance says", ("attribute", "value"), shown),
        ),
        (_slices(made),),
    )


def _words(value: object) -> str:
    """A value as DICOM writes it."""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)


def _largest(mask: np.ndarray) -> np.ndarray:
    pieces, count = label(mask)
    if not count:
        return np.zeros(mask.shape, bool)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def _slices(made: Made) -> Picture:
    source, result, _ = made.turned()
    z = int(np.abs(result - source).sum(axis=(1, 2)).argmax())
    figure = new_figure(7.2, 2.6)
    for place, (title, image, colours, low, high) in enumerate(
        (
            ("source", source[z], "gray", -160, 240),
            ("result", result[z], "gray", -160, 240),
            ("result - source [HU]", result[z] - source[z], "RdBu_r", -150, 150),
        ),
        1,
    ):
        axis = figure.add_subplot(1, 3, place)
        axis.imshow(image[::2, ::2], cmap=colours, vmin=low, vmax=high)
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    figure.tight_layout(pad=0.4, rect=(0, 0, 1, 0.95))
    return picture(
        figure, f"{made.subject.name.rpartition('/')[2]}, slice {z + 1}, HU -160 to 240; change -150 to 150 HU."
    )


def timing(made: Sequence[Made]) -> Section:
    """Seconds of each stage of each job."""
    stages = list(made[0].stage_s)
    rows: list[Sequence[Cell]] = [
        (
            one.subject.name.rpartition("/")[2],
            len(one.source.slices),
            *(f"{one.stage_s.get(stage, 0.0):.1f}" for stage in stages),
            f"{sum(one.stage_s.values()) / len(one.source.slices):.2f}",
        )
        for one in made
    ]
    return Section(
        "Time",
        ("Seconds of each stage of a job on this machine, which may have been busy with other work.",),
        (table("Seconds by stage", ("series", "slices", *stages, "per slice"), rows),),
    )


# -- drills ----------------------------------------------------------------------------------------------------


def drills(subject: Subject, bundle: Path, translator: Translator) -> Section:
    """A few failures on purpose: each must be refused, and say why."""
    asked: Mapping[str, tuple[str, Callable[[Path], object]]] = {
        "a slice whose file is cut in half": ("refused", lambda folder: _cut(subject, translator, folder)),
        "a slice in the middle is missing": ("refused", lambda folder: _gap(subject, translator, folder)),
        "one byte of the weights is changed": ("refused", lambda folder: _flipped(bundle, folder)),
        "a GPU is asked for that does not exist": ("refused", lambda _folder: _no_gpu(bundle)),
    }
    rows: list[Sequence[Cell]] = []
    for name, (expected, drill) in asked.items():
        with TemporaryDirectory() as folder:
            try:
                drill(Path(folder))
                outcome, words = "NOT REFUSED", ""
            except _NotRun as reason:
                outcome, words = "not run", str(reason)
            except Exception as error:  # the drill asks which error comes; any other than ours is told by its name
                words = str(error).replace(f"{folder}/", "").replace(str(bundle), "the bundle")
                outcome = "refused"
                words = f"{type(error).__name__}: {words}"
        rows.append((name, expected, outcome, words))
    return Section(
        "Failure drills",
        ("Each fault was made on purpose, in this process. A drill that was not refused is a reason not to sign.",),
        (table("Drills", ("fault", "expected", "found", "what the node said"), rows),),
    )


class _NotRun(Exception):
    """This machine cannot run the drill."""


def _copied(subject: Subject, folder: Path) -> list[Path]:
    (folder / "series").mkdir()
    return [Path(copy(path, folder / "series")) for path in subject.paths]


def _cut(subject: Subject, translator: Translator, folder: Path) -> None:
    paths = _copied(subject, folder)
    paths[1].write_bytes(paths[1].read_bytes()[: paths[1].stat().st_size // 2])
    (folder / "out").mkdir()
    run_job(paths, translator, options(), folder / "out")


def _gap(subject: Subject, translator: Translator, folder: Path) -> None:
    paths = _copied(subject, folder)
    paths.pop(len(paths) // 2)
    (folder / "out").mkdir()
    run_job(paths, translator, options(), folder / "out")


def _flipped(bundle: Path, folder: Path) -> None:
    copytree(bundle, folder / "bundle")
    weights = folder / "bundle" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    models.load_bundle(folder / "bundle")


def _no_gpu(bundle: Path) -> None:
    if models.count_alike_gpus():
        raise _NotRun("this machine has a GPU")
    models.load_bundle(bundle, device="cuda")
