"""Promises of a run within limits: of memory, of time, and of a process that dies at any moment."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models import verify_bundle
from models.cohort import Cohort
from models.methods.method import Batch, Method, make_method, step_in_parts
from models.networks.discriminators import PatchGanConfig
from models.networks.unet import UnetConfig
from models.training import TrainingError, TrainOptions, estimate, keep, train
from models.training import clock as clock_module
from models.training.keep import recover_folder, replace_folder
from tests.component.models.training_cohort import lines, options

_UNET = UnetConfig(downs=4, base_channels=8, norm="instance", dropout=0.0)
# Nothing in them looks at a whole batch or draws noise, so that parts of a batch are all that differs.
EVEN: dict[str, dict[str, Any]] = {
    "pix2pix": {"generator": _UNET, "discriminator": PatchGanConfig(2, 8, 2)},
    "cyclegan": {"pool_size": 0},
    "reggan": {"pool_size": 0},
}


def _double(name: str) -> Method:
    """In double precision: Adam turns what rounding leaves of a gradient that is zero into a step of full length."""
    regime = {"batch_size": 4, "ema_decay": 0.9}
    method = make_method(name, "tiny", regime=regime, **EVEN[name])
    for network in (*method.parts.networks.values(), *method.parts.averages.values()):
        network.double()
    return method


def _flat(method: Method) -> dict[str, torch.Tensor]:
    found = {}
    for name, network in method.parts.networks.items():
        found[name] = torch.cat([p.detach().flatten() for p in network.parameters()])
        found[f"gradient of {name}"] = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    means = method.parts.averages.items()
    return found | {f"mean {key}": torch.cat([p.flatten() for p in mean.parameters()]) for key, mean in means}


@pytest.mark.parametrize("name", EVEN)
def test_a_batch_in_parts_moves_the_weights_as_the_whole_batch_does(name: str) -> None:
    whole, parted = _double(name), _double(name)
    generator = torch.Generator().manual_seed(1)
    for step in range(3):
        source, target = torch.rand(2, 4, 1, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1
        expected = whole.training_step(Batch(source, target), step)
        found = step_in_parts(parted, Batch(source, target), step, 4)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
        for key, values in _flat(whole).items():
            assert (_flat(parted)[key] - values).norm() < 1e-4 * values.norm(), key
    assert whole.parts.updates == parted.parts.updates == 3


def test_parts_have_noise_of_their_own_and_every_method_takes_them() -> None:
    for name in ("syndiff", "syndiff_paired"):
        method = make_method(name, "tiny", regime={"batch_size": 2})
        image = torch.rand(1, 1, 16, 16) * 2 - 1
        twice = torch.cat([image, image])
        seen: list[float] = []
        step = method.training_step

        def noted(batch: Batch, number: int, step: Any = step, seen: list[float] = seen) -> dict[str, float]:
            losses: dict[str, float] = step(batch, number)
            seen.append(next(value for key, value in losses.items() if key.startswith("l1")))
            return losses

        method.training_step = noted  # type: ignore[method-assign, assignment]
        losses = step_in_parts(method, Batch(twice, twice), 0, 2)
        assert len(set(seen)) == 2
        assert all(value == value for value in losses.values())


def test_a_batch_that_has_no_such_parts_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a batch of 2 cannot be divided into 4 parts"):
        train(cohort, tmp_path, options(regime={"accumulate": 4}))
    result = train(cohort, tmp_path / "run", options(regime={"accumulate": 2, "epochs": 1}))
    assert result.steps == 3


class _Clock:
    """A second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def test_a_run_ends_in_order_when_its_time_is_up_and_rates_end_with_it(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(monotonic=_Clock().monotonic))
    rates: list[float] = []
    regime = {"epochs": 1000, "decay": "cosine", "final_lr": 0.0}
    limited = options("pix2pix", regime=regime, minutes=0.5)
    set_rates = "models.methods.optimisation.Regime.rate_at"
    real = __import__("models.methods.optimisation", fromlist=["Regime"]).Regime.rate_at

    def noted(self: Any, rate: float, epoch: float, step: int) -> float:
        rates.append(real(self, rate, epoch, step))
        return rates[-1]

    monkeypatch.setattr(set_rates, noted)
    result = train(cohort, tmp_path, limited)
    assert result.stopped_early
    assert 8 <= result.steps <= 15  # it looks twice a step, and sometimes more
    assert rates[-1] < 0.05 * rates[0]
    assert verify_bundle(result.bundle) == result.card
    assert result.card.training["minutes"] == 0.5
    assert lines(tmp_path, "validations.jsonl")[-1]["step"] == result.steps
    assert train(cohort, tmp_path, limited, resume=True) == result


def test_seconds_before_a_stop_count(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = options("pix2pix", regime={"epochs": 1000}, minutes=0.5, checkpoint_every=1)
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(monotonic=_Clock().monotonic))
    whole = train(cohort, tmp_path / "whole", limited)
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(monotonic=_Clock().monotonic))
    monkeypatch.setattr("models.training.journal.Journal.step", _dies_at(5))
    with pytest.raises(KeyboardInterrupt):
        train(cohort, tmp_path / "cut", limited)
    monkeypatch.undo()
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(monotonic=_Clock().monotonic))
    resumed = train(cohort, tmp_path / "cut", limited, resume=True)
    assert abs(resumed.steps - whole.steps) <= 2


def _dies_at(at: int) -> Any:
    def step(self: object, step: int, epoch: float, losses: object) -> None:
        if step == at:
            raise KeyboardInterrupt

    return step


def test_there_is_a_bundle_from_the_first_validation_on(cohort: Cohort, tmp_path: Path) -> None:
    seen = []

    class Looks:
        def began(self, description: str, step: int, total_steps: int) -> None: ...
        def stepped(self, epoch: int, step: int, losses: object) -> None: ...
        def validated(self, epoch: int, figures: object, *, best: bool) -> None:
            seen.append(verify_bundle(tmp_path / "bundle").training["epoch"])

    train(cohort, tmp_path, options("pix2pix"), observer=Looks())
    assert seen[0] == 1


def _fill(word: str) -> Any:
    def fill(folder: Path) -> None:
        folder.mkdir()
        (folder / "a").write_text(word)
        (folder / "b").write_text(word)

    return fill


def _dies(folder: Path) -> None:
    folder.mkdir()
    (folder / "a").write_text("half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_as_a_whole(exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchanges:  # a file system that cannot
        monkeypatch.setattr(keep, "_exchanged", lambda *_: False)
    folder = tmp_path / "bundle"
    for word in ("first", "second"):
        replace_folder(folder, _fill(word))
        assert {path.read_text() for path in folder.iterdir()} == {word}
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    with pytest.raises(KeyboardInterrupt):
        replace_folder(folder, _dies)
    assert {path.read_text() for path in folder.iterdir()} == {"second"}
    recover_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_system_of_this_machine_exchanges_folders(tmp_path: Path) -> None:
    for word in ("one", "other"):
        _fill(word)(tmp_path / word)
    if not keep._exchanged(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot exchange two folders")
    assert (tmp_path / "one" / "a").read_text() == "other"


def test_a_crash_between_two_renames_is_mended(tmp_path: Path) -> None:
    _fill("former")(tmp_path / "bundle.previous")
    _fill("new")(tmp_path / "bundle.fresh")
    recover_folder(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "a").read_text() == "former"


def test_what_a_run_will_take_is_estimated_without_a_trace(cohort: Cohort, tmp_path: Path) -> None:
    found = estimate(cohort, options("pix2pix", minutes=60), tmp_path)
    assert not list(tmp_path.iterdir())
    assert (found.steps, found.epochs) == (9, 3)
    assert 0 < found.seconds_per_step < 5
    expected = 9 * found.seconds_per_step + 3 * found.seconds_per_validation
    assert found.seconds == pytest.approx(expected)
    assert found.epochs_in_budget == pytest.approx(3 * 3600 / expected)
    written = train(cohort, tmp_path / "run", options("pix2pix")).bundle.parent
    size = sum(file.stat().st_size for file in written.rglob("*") if file.is_file())
    assert size < found.disk_bytes < 4 * size
    assert found.memory_bytes > 50e6
    with pytest.raises(TrainingError, match=r"these settings make no training step: .*channels"):
        estimate(cohort, options("pix2pix", model={"generator": {"in_channels": 2}}), tmp_path)
    with pytest.raises(TrainingError, match="batch of 99"):
        estimate(cohort, options("pix2pix", regime={"batch_size": 99}), tmp_path)


def test_tensorboard_compares_runs_by_their_settings(cohort: Cohort, tmp_path: Path) -> None:
    train(cohort, tmp_path, options("pix2pix", regime={"epochs": 1, "seed": 77}))
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    content = b"".join(board.PluginTagToContent("hparams").values())
    assert b"regime.seed" in content
    assert b"validation/nmae" in content
    assert "validation/nmae" in board.Tags()["scalars"]


def test_a_run_keeps_its_settings_and_its_card_has_them(cohort: Cohort, tmp_path: Path) -> None:
    changed = options("pix2pix", regime={"epochs": 1}, model={"l1_weight": 50.0, "generator": {"dropout": 0.0}})
    card = train(cohort, tmp_path, changed).card
    settings: Any = card.training["settings"]
    assert (settings["l1_weight"], settings["generator"]["dropout"]) == (50.0, 0.0)
    text = (tmp_path / "run.toml").read_text()
    assert "l1_weight = 50.0" in text
    assert train(cohort, tmp_path, changed, resume=True).card == card
    other = TrainOptions("pix2pix", preset="tiny", device="cpu", regime={"epochs": 1}, model={"l1_weight": 60.0})
    with pytest.raises(TrainingError) as refusal:
        train(cohort, tmp_path, other, resume=True)
    assert "begun with model.generator.dropout 0.0, not 0.1, model.l1_weight 50.0, not 60.0" in str(refusal.value)


def test_what_would_fail_at_the_end_fails_at_once(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="model: prediction is 'guess'; allowed are image, residual"):
        train(cohort, tmp_path / "a", options("pix2pix", model={"prediction": "guess"}))
    with pytest.raises(TrainingError, match="name is 'not a name'"):
        train(cohort, tmp_path / "b", options("pix2pix", name="not a name"))
