"""Whether the device computes what the CPU computes: translation by every method, single networks, training steps.

The CPU in fp32, one slice at a time, is the reference. Weights are random and alive, so that no error can hide in a
network that returns nothing.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.tools import (
    SEED,
    SLICES_MM,
    arithmetic,
    bundle_of,
    largest,
    live_network,
    phantom_slices,
    relative_error,
    shipped,
    step_inputs,
    translator,
)
from bench.gpu.training_steps import compare_training_steps
from models.evaluation.precision import MAX_DIFFERENCE_HU, MAX_MAE_HU, MAX_PSNR_CHANGE_DB, precision_loss
from models.registry import METHODS
from models.translator import Precision
from models.translators.engine import Engine

FP32_SHARE = 1e-3
FP32_WHY = (
    "float32 sums in another order differ by 1e-6 to 1e-5 a network, which four steps may enlarge; TF32, which the "
    "translator forbids, would give 1e-3 and more"
)
BF16_SHARE = 5e-2
BF16_WHY = "three times the 1.7e-2 that bfloat16 costs these networks on a CPU"


def correctness(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Translations first: they are what the product is for."""
    _translations(section, device, size, folder)
    _shipped_bundles(section, device, size)
    _networks(section, device, size)
    compare_training_steps(section, device, size, folder)


def _translations(section: Section, device: str, size: Size, folder: Path) -> None:
    for preset in size.compared:
        for method in METHODS:
            what = f"{method} {preset}"
            if not section.has_time_for(f"{what}, device against CPU", seconds=1):
                continue
            path, hu = bundle_of(method, preset, folder), phantom_slices(2, size.rows)
            exact = translator(path, "cpu", "fp32", 1).translate(hu, SEED, spacing_mm=SLICES_MM)
            change = float(np.abs(exact - hu.clip(-40, 400)).mean())
            section.check(
                f"{what}: mean change, HU", change, 5, "a network that changes nothing hides errors", least=True
            )
            for precision, limit, why in (("fp32", FP32_SHARE, FP32_WHY), ("bf16", BF16_SHARE, BF16_WHY)):
                found = _translated(path, device, precision, hu)
                error = np.abs(found - exact)
                name = f"{what}, {precision} on {device} against fp32 on cpu: mean error / mean change"
                section.check(name, float(error.mean()) / change, limit, why)
                section.row(
                    figure=f"{what}, {precision}: error", mean_hu=float(error.mean()), max_hu=float(error.max())
                )


def _translated(path: Path, device: str, precision: str, hu: NDArray[np.float32]) -> NDArray[np.float32]:
    kind: Precision = "bf16" if precision == "bf16" else "fp32"
    return translator(path, device, kind, len(hu)).translate(hu, SEED, spacing_mm=SLICES_MM)


def _shipped_bundles(section: Section, device: str, size: Size) -> None:
    """The gates of bf16 on the weights that patients meet, and fp32 to a twentieth of a unit that DICOM can store."""
    for name in size.shipped:
        if not section.has_time_for(f"bundle {name}", seconds=1):
            continue
        hu = phantom_slices(2, size.rows)
        exact = translator(shipped(name), "cpu", "fp32", 1).translate(hu, SEED, spacing_mm=SLICES_MM)
        found = _translated(shipped(name), device, "fp32", hu)
        error = float(np.abs(found - exact).max())
        section.check(f"bundle {name}, fp32 on {device} against cpu: max, HU", error, 0.05, "pixels are whole HU")
        loss = precision_loss(shipped(name), device="cuda" if device == "cuda" else "cpu", slices=2)
        gate = "the gate of models.evaluation.precision"
        section.check(f"bundle {name}, bf16 against fp32 on {device}: MAE, HU", loss.mae_hu, MAX_MAE_HU, gate)
        section.check(f"bundle {name}, bf16 against fp32 on {device}: max, HU", loss.max_hu, MAX_DIFFERENCE_HU, gate)
        change = abs(loss.psnr_change_db)
        section.check(f"bundle {name}, bf16 against fp32 on {device}: PSNR, dB", change, MAX_PSNR_CHANGE_DB, gate)


def _networks(section: Section, device: str, size: Size) -> None:
    """One folded step against the plain network on the CPU, with TF32 forbidden and allowed."""
    for preset in size.compared:
        if not section.has_time_for(f"folded steps of syndiff {preset}", seconds=2):
            continue
        config = METHODS["syndiff"].presets[preset].network
        plain, network = live_network(config, "cpu"), live_network(config, device)
        images, _, z = step_inputs(config, 2, "cpu")
        with torch.inference_mode():
            expected = {t: plain(images, torch.tensor([t]), z) for t in (0, 3)}
        inputs, latent = images.to(device), z.to(device)
        errors = {}
        for number in ("fp32", "bf16", "tf32"):
            with arithmetic(tf32=number == "tf32", deterministic=True):
                engine = Engine(network, "bf16" if number == "bf16" else "fp32")
                found = [relative_error(engine.fold(t, latent)(inputs), out) for t, out in expected.items()]
            errors[number] = largest(found)
        limit = 1e-5 if device == "cpu" else 1e-4
        why = "sums in another order; Winograd and FFT convolutions of a GPU may cost ten times as much as the CPU's"
        section.check(f"folded {preset}, fp32 without TF32: relative error", errors["fp32"], limit, why)
        section.check(f"folded {preset}, bf16: relative error", errors["bf16"], 3e-2, "the limit of the CPU's tests")
        section.row(figure=f"folded {preset}, fp32 with TF32: relative error", value=errors["tf32"])
