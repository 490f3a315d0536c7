"""Promises of distillation: the student begins as its teacher's first step, learns its mean, and says whose it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import BundleError, load_bundle
from models.cohort import Cohort, CohortWriter, PatientRecord
from models.diffusion import estimate_x0
from models.methods.method import Batch, make_method, write_method_bundle
from models.testing import write_tiny_bundle
from models.training import TrainingError, TrainOptions, train
from models.translators.syndiff import SeriesNoise, SyndiffTranslator

SIDE = 32


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher")
    write_tiny_bundle(path, matrix=SIDE)
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    writer = CohortWriter(tmp_path_factory.mktemp("cohort"), kind="phantom", provenance={})
    rng = np.random.Generator(np.random.Philox(5))
    for number, split in enumerate(("train", "train", "validation")):
        ncct = rng.normal(60, 60, (4, SIDE, SIDE)).astype(np.float32)
        record = PatientRecord(f"P{number}", "H1", split, ncct.shape, (5.0, 1.5, 1.5))
        writer.add(record, {"ncct": ncct, "cect": ncct + 50})
    return writer.close()


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_fresh_student_is_its_teachers_first_step(teacher: Path) -> None:
    student = make_method("syndiff_student", "tiny", teacher=str(teacher))
    loaded = load_bundle(teacher)
    assert isinstance(loaded, SyndiffTranslator)
    noise = SeriesNoise.from_seed(9, num_timesteps=4, nz=4, matrix=SIDE)
    source = images()
    network = student._teacher  # type: ignore[attr-defined]
    with torch.no_grad():
        first = estimate_x0(
            network,
            loaded.card,
            x_next=torch.from_numpy(noise.x_T).expand_as(source),
            source=source,
            t=torch.tensor([3]),
            z=torch.from_numpy(noise.z[0]),
        )
    torch.testing.assert_close(student.inference.translate(source, 9), first, atol=1e-5, rtol=0)
    assert float((first - source).abs().max()) > 0.01


def test_it_learns_the_mean_of_its_teachers_samples(teacher: Path) -> None:
    changes: dict[str, Any] = {"teacher": str(teacher), "l1_weight": 0.0, "adversarial_weight": 0.0}
    student = make_method("syndiff_student", "tiny", **changes)
    batch = Batch(images(), images())
    losses = [student.training_step(batch, step)["teacher"] for step in range(30)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_its_bundle_takes_one_step_and_names_its_teacher(teacher: Path, cohort: Cohort, tmp_path: Path) -> None:
    options = TrainOptions("syndiff_student", preset="tiny", device="cpu", teacher=str(teacher), name="pupil")
    result = train(cohort, tmp_path, options)
    assert result.card.training["teacher"] == {
        "name": "tiny",
        "version": "0",
        "digest": load_bundle(teacher).card.digest,
    }
    pupil = load_bundle(result.bundle)
    assert pupil.card.method == "syndiff_student"
    assert "1 step)" in pupil.description
    assert pupil.translate(np.full((1, 40, 40), 50, np.float32), 0).shape == (1, 40, 40)


def test_who_cannot_teach_is_refused(teacher: Path, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="needs a teacher"):
        train(cohort, tmp_path, TrainOptions("syndiff_student", preset="tiny"))
    with pytest.raises(TrainingError, match="no other method takes one"):
        train(cohort, tmp_path, TrainOptions("pix2pix", preset="tiny", teacher=str(teacher)))
    other = make_method("pix2pix", "tiny")
    write_method_bundle(other, tmp_path / "p", load_bundle(teacher).card)
    with pytest.raises(BundleError, match="is no SynDiff"):
        make_method("syndiff_student", "tiny", teacher=str(tmp_path / "p"))
