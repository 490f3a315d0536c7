"""The command that trains the shipped bundles: patients made meanwhile, the clock, stops."""

import json
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import torch

from models import load_bundle
from models.methods.syndiff_paired import SyndiffPaired
from models.networks.config import NcsnppConfig
from models.networks.discriminators import TimeDiscriminatorConfig
from models.training import demo_bundles, demo_run
from models.training.resident import Packed, pack

MINUTES = 0.005
TINY = NcsnppConfig(image_size=32, nf=8, ch_mult=(1, 2), num_res_blocks=1, nz=8, z_emb_dim=16, n_mlp=2, patch_size=2)


def invented(seed: int) -> tuple[Packed, float]:
    """Slices of noise around blood of 40 HU, 3 mm apart."""
    source = np.random.default_rng(seed).normal(40, 10, (4, 32, 32)).astype(np.float32)
    return pack(source, source + np.float32(50), 32), 3.0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadPool]:
    """The command at a size that takes milliseconds."""
    monkeypatch.setattr(demo_run, "NETWORK", TINY)
    monkeypatch.setattr(demo_run, "MATRIX", 32)
    monkeypatch.setattr(demo_run, "make_patient_packed", invented)
    small_critic = TimeDiscriminatorConfig(widths=(4, 8, 8), t_emb_dim=8)
    recipe = demo_run.RECIPES["demo"]
    changed = replace(recipe, changes=recipe.changes | {"time_discriminator": small_critic})
    monkeypatch.setitem(demo_run.RECIPES, "demo", changed)
    with ThreadPool(2) as pool:
        yield pool


def options(out: Path, name: str = "demo-1step", **changes: object) -> demo_run.Options:
    out.mkdir(exist_ok=True)
    plain = demo_run.Options(
        name, out, minutes=MINUTES, workers=1, patients=14, device="cpu", batch=2, resume=False, teacher=None
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def trained(pool: ThreadPool, chosen: demo_run.Options) -> demo_run.Run:
    run = demo_run.Run.begin(chosen)
    run.train(demo_run.Patients(pool, 1, most=chosen.patients, ahead=2))
    run.keep()
    return run


@pytest.mark.parametrize("name", demo_run.RECIPES)
def test_a_run_leaves_a_bundle_that_translates_and_says_what_it_is(
    name: str, small: ThreadPool, tmp_path: Path
) -> None:
    run = trained(small, options(tmp_path / "run", name))
    translator = load_bundle(tmp_path / "run" / "bundle", blood_level_hu=80.0)
    result = translator.translate(np.full((3, 40, 40), 40, np.float32), 1, spacing_mm=4.0)
    assert np.isfinite(result).all()
    card = translator.card
    assert (card.name, card.blood_level_hu, card.context_mm) == (name, 110.0, demo_run.CONTEXT_MM)
    assert card.training["steps"] == run.step > 0
    assert 12 <= card.training["patients"] <= 14  # type: ignore[operator]
    assert card.diffusion["num_timesteps"] == (1 if name == "demo-1step" else 4)


def test_a_run_goes_on_where_it_was_stopped(small: ThreadPool, tmp_path: Path) -> None:
    first = trained(small, options(tmp_path / "run"))
    again = demo_run.Run.begin(options(tmp_path / "run", resume=True))
    assert again.step == first.step
    assert again.seconds == pytest.approx(first.seconds)
    kept, taken = (run.method.parts.networks["generator"].state_dict() for run in (first, again))
    assert all(torch.equal(kept[key], taken[key]) for key in kept)
    seconds = json.loads((tmp_path / "run" / "state.json").read_text())["seconds"]
    assert seconds >= 60 * MINUTES


def test_a_run_is_never_continued_by_accident(
    small: ThreadPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(small, options(tmp_path / "run"))
    assert demo_bundles.main(["demo-1step", "--out", str(tmp_path / "run")]) == 2
    assert "--resume" in capsys.readouterr().err


def test_one_step_begins_as_the_first_of_more(small: ThreadPool, tmp_path: Path) -> None:
    teacher = trained(small, options(tmp_path / "teacher", "demo"))
    student = demo_run.Run.begin(options(tmp_path / "run", teacher=tmp_path / "teacher" / "bundle"))
    assert isinstance(teacher.method, SyndiffPaired)
    images, z = torch.randn(2, 6, 32, 32), torch.randn(2, 8)
    # Bundles hold half precision.
    expected = load_bundle(tmp_path / "teacher" / "bundle")._network(images, torch.tensor([3]), z)  # type: ignore[attr-defined]
    found = student.method.parts.networks["generator"](images, torch.tensor([0]), z)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_command_names_the_recipes() -> None:
    assert set(demo_bundles.NAMES) == set(demo_run.RECIPES)


def test_patients_come_once_each_and_end(small: ThreadPool) -> None:
    patients = demo_run.Patients(small, 5, most=4, ahead=2)
    came: list[tuple[Packed, float]] = []
    while batch := patients.take(wait=True):
        came += batch
    assert len(came) == 4
    wanted = sorted(invented(seed)[0][0].tobytes() for seed in range(5, 9))
    assert sorted(packed[0].tobytes() for packed, _ in came) == wanted
    assert patients.take(wait=False) == []
