"""What the loop shows a method: neighbours, blood at one level, slices held on the device and changed each time."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import load_bundle
from models.cohort import Cohort, CohortWriter
from models.frame import Frame
from models.methods.optimisation import Regime
from models.training import TrainingError, TrainOptions, read_options, render, train
from models.training.augmentation import Augmentation
from models.training.resident import hold, show_batches
from models.training.slices import BatchPlan, SliceSet, read_batches
from tests.component.models.training_cohort import PullsThePlug, lines, options

CONTEXT_MM = (-5.0, 5.0)
CHANGED = Augmentation(noise_hu=(1.0, 9.0), rotate_deg=5.0, move_px=1.0, lesions=0.5)
FRAME = Frame((-40.0, 400.0), 16)


def slices(cohort: Cohort, *, stacked: bool = False, level_hu: float | None = None) -> SliceSet:
    target = "cect" if level_hu is None else "enhanced_source"
    kept = {"context_mm": CONTEXT_MM, "stacked": stacked, "blood_level_hu": level_hu}
    return SliceSet(cohort.split("train"), FRAME, target, **kept)  # type: ignore[arg-type]


def test_a_slice_is_shown_with_the_neighbours_of_its_own_patient(cohort: Cohort) -> None:
    whole, stacks = slices(cohort), slices(cohort, stacked=True)
    (second, target), (first, _) = whole[3, 3], whole[2, 2]
    assert (second.shape, target.shape, stacks[3, 2][1].shape) == ((3, 16, 16), (1, 16, 16), (3, 16, 16))
    assert torch.equal(second, torch.stack([second[0], first[0], second[0]]))
    assert torch.equal(first, torch.stack([first[0], first[0], second[0]]))
    assert not torch.equal(first[0], second[0])
    assert torch.equal(stacks[3, 2][1][2], stacks[3, 3][1][0])
    assert whole.spread(4).source.shape == (4, 3, 16, 16)


def test_blood_is_taught_at_one_level(cohort: Cohort) -> None:
    source, target = slices(cohort, level_hu=120.0)[3, 3]
    assert float(target[0, 8, 8] - source[0, 8, 8]) == pytest.approx(120 / 220, abs=1e-3)


@pytest.mark.parametrize("stacked", [False, True])
def test_slices_on_the_device_are_those_that_would_be_read(cohort: Cohort, stacked: bool) -> None:
    read = slices(cohort, stacked=stacked)
    held = hold(read, FRAME.matrix, "cpu")
    plan = BatchPlan(len(read), Regime(batch_size=2, epochs=2), paired=not stacked)
    shown, expected = list(show_batches(held, plan, 1, 1, None)), list(read_batches(read, plan, 1, 1))
    assert len(shown) == len(expected) == 2
    for a, b in zip(shown, expected, strict=True):
        assert a.target.shape[1] == (3 if stacked else 1)
        torch.testing.assert_close(a.source, b.source, atol=2e-3, rtol=0)
        torch.testing.assert_close(a.target, b.target, atol=2e-3, rtol=0)


@pytest.mark.parametrize("method", ["pix2pix", "cyclegan"])
def test_a_run_that_shows_all_of_it_goes_on_as_if_it_had_never_stopped(
    method: str, cohort: Cohort, tmp_path: Path
) -> None:
    wanted = options(
        method,
        target="enhanced_source",
        blood_level_hu=120.0,
        resident=True,
        augmentation=CHANGED,
        model={"context_mm": CONTEXT_MM},
        checkpoint_every=2,
    )
    whole = train(cohort, tmp_path / "whole", wanted)
    with pytest.raises(KeyboardInterrupt):
        train(cohort, tmp_path / "cut", wanted, observer=PullsThePlug(6))
    resumed = train(cohort, tmp_path / "cut", wanted, resume=True)
    for file in ("losses.jsonl", "validations.jsonl"):
        assert lines(tmp_path / "cut", file) == lines(tmp_path / "whole", file)
    assert resumed.card.weights_sha256 == whole.card.weights_sha256
    card = whole.card
    assert (card.context_mm, card.blood_level_hu) == (CONTEXT_MM, 120.0)
    assert str(card.training["target"]).endswith(", blood at 120 HU in every patient")
    assert any("perfusion" in limit for limit in card.limits)
    assert card.training["augmentation"] == {key: _plain(value) for key, value in asdict(CHANGED).items()}
    plain = train(cohort, tmp_path / "plain", replace(wanted, augmentation=None))
    assert lines(tmp_path / "plain") != lines(tmp_path / "whole")
    hu = cohort.patients[0].hu("ncct")
    assert np.isfinite(load_bundle(plain.bundle, blood_level_hu=60.0).translate(hu, 0, spacing_mm=5.0)).all()


def test_a_file_holds_what_is_shown(tmp_path: Path) -> None:
    wanted = TrainOptions(
        "syndiff_paired",
        target="enhanced_source",
        blood_level_hu=110.0,
        resident=True,
        augmentation=CHANGED,
        model={"context_mm": [-4.0, 4.0]},
    )
    (tmp_path / "run.toml").write_text(render(wanted))
    found = read_options(tmp_path / "run.toml", {})
    assert (found.blood_level_hu, found.resident, found.augmentation) == (110.0, True, CHANGED)
    assert render(found) == render(wanted)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blood_level_hu": 110.0}, "enhanced_source"),
        ({"blood_level_hu": 20.0, "target": "enhanced_source"}, "from 40 to 200"),
        ({"augmentation": CHANGED}, "resident"),
        (
            {
                "augmentation": Augmentation(level=(0.5, 2.0)),
                "resident": True,
                "blood_level_hu": 110.0,
                "target": "enhanced_source",
            },
            r"augmentation\.level",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        options(**changes)  # type: ignore[arg-type]


def test_a_level_needs_the_true_enhancement_of_the_blood(cohort: Cohort, tmp_path: Path) -> None:
    writer = CohortWriter(tmp_path / "cohort", kind="phantom", provenance={})
    for patient in cohort.patients:
        arrays = {name: patient.hu(name) for name in ("ncct", "cect", "enhancement")}
        writer.add(replace(patient.record, e_hu=None, arrays=None), arrays)
    wanted = options(target="enhanced_source", blood_level_hu=110.0)
    with pytest.raises(TrainingError, match="patient P0 has no e_hu"):
        train(writer.close(), tmp_path / "run", wanted)


def test_neighbours_that_no_card_can_name_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="context_mm"):
        train(cohort, tmp_path, options("pix2pix", model={"context_mm": [0.0]}))


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
