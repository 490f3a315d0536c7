"""Figures of the networks: a denoising step beside its naive form, what precision costs, and the five methods.

`generator` times everything in turns, A B A B, and keeps the least of each, so that a busy moment of the machine does
not fall on one side only. Random weights are alive (`naive_ncsnpp.enliven`); no figure here says how good a model is.
"""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from bench.naive_ncsnpp import NaiveNcsnpp, enliven
from models import find_bundle, load_bundle, write_bundle
from models.bundle import BundleCard
from models.diffusion import DiffusionConfig
from models.evaluation.precision import precision_loss
from models.frame import Frame
from models.methods.method import serialise
from models.networks.config import NcsnppConfig
from models.networks.generators import build_generator, describe_generator
from models.networks.ncsnpp import Ncsnpp
from models.phantom import make_patient
from models.registry import METHODS
from models.translator import Device
from models.translators.engine import Engine
from models.translators.slicewise import computes_bf16
from models.translators.syndiff import SeriesNoise, SyndiffTranslator

REPEATS = 4
GPU_BATCH = 8
STEP = 2
SINGLE_PASS = tuple(name for name, row in METHODS.items() if row.translation.endswith("single_pass"))
STEPS = {"syndiff_student": 1}
"""Of a method whose number of steps is not the published one, which is four."""
GPU_SLICES = 136


def generator(folder: Path) -> dict[str, float]:
    """Measure in about two minutes on 2 cores; `folder` takes bundles of random weights. Figures by what they are."""
    results: dict[str, float] = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        results |= one_step(device) | methods(folder, device)
        four_naive_steps = 4 * results[f"{device}, naive fp32: s per step per slice"]
        for name in ("syndiff", "syndiff_student"):
            ratio = four_naive_steps / results[f"{device}, {name}: s per slice"]
            results[f"{device}, four naive steps / {name}, per slice"] = ratio
    return results | demo_errors()


def one_step(device: str) -> dict[str, float]:
    """Seconds for one denoising step of one slice at the README configuration, and errors against the plain network."""
    config = NcsnppConfig()
    network = Ncsnpp(config).requires_grad_(False).eval()
    enliven(network, 1)
    network.to(device)
    naive = NaiveNcsnpp(network)
    last = deepcopy(network)
    last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it

    random = torch.Generator().manual_seed(1)
    images = torch.randn(1, config.num_channels, config.image_size, config.image_size, generator=random).to(device)
    z, t = torch.randn(1, config.nz, generator=random).to(device), torch.tensor([STEP], device=device)
    batch = GPU_BATCH if device == "cuda" else 1
    many = images.expand(batch, -1, -1, -1)
    with torch.inference_mode():
        exact = network(images, t, z)
    variants: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "naive fp32": (1, lambda: naive(images, t, z)),
        "unfolded fp32": (1, lambda: last(images, t, z)),
    }
    for precision in ("fp32", "bf16"):
        variants[f"folded {precision}"] = (batch, partial(Engine(last, precision).fold(STEP, z), many))
    with torch.inference_mode():
        errors = {name: relative(run()[:1], exact) for name, (_, run) in variants.items()}
        if device == "cpu" and not computes_bf16():
            del variants["folded bf16"]  # imitated: several times slower than fp32, and never chosen
        seconds = fastest({name: run for name, (_, run) in variants.items()}, device)
    seconds = {name: taken / variants[name][0] for name, taken in seconds.items()}
    best = min((name for name in seconds if name.startswith("folded")), key=seconds.__getitem__)
    return (
        {f"{device}, {name}: s per step per slice": taken for name, taken in seconds.items()}
        | {f"{device}, naive / {name}": seconds["naive fp32"] / taken for name, taken in seconds.items()}
        | {f"{device}, naive / folded, faster precision": seconds["naive fp32"] / seconds[best]}
        | {f"{device}, {name}: relative error against plain fp32": error for name, error in errors.items()}
        | bound(device, best.removeprefix("folded "), variants[best][1], seconds[best] * variants[best][0])
    )


def bound(device: str, precision: str, step: Callable[[], Tensor], seconds: float) -> dict[str, float]:
    """Why a step takes as long as it does: its rate beside that of a large matrix product, and what is not convolution.

    A step as fast as the product could only get faster by fewer operations or a shorter number format.
    """
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counted:
            step()
        with profile() as profiled:
            step()
        square = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        product_s = fastest({"": lambda: square @ square}, device)[""]
    times = {event.key: event.self_cpu_time_total + event.self_device_time_total for event in profiled.key_averages()}
    convolutions = sum(time for name, time in times.items() if "conv" in name)
    rate, limit = counted.get_total_flops() / seconds / 1e9, 2 * 4096**3 / product_s / 1e9
    return {
        f"{device}, folded {precision}: GFLOP per s": rate,
        f"{device}, product of large {precision} matrices: GFLOP per s": limit,
        f"{device}, folded {precision} / product of large matrices, rates": rate / limit,
        f"{device}, folded {precision}: share of convolutions in its time": convolutions / sum(times.values()),
    }


def demo_errors() -> dict[str, float]:
    """What folding and bf16 change in the shipped bundle's HU, on phantom slices."""
    path, hu = find_bundle("demo"), make_patient(2, slices=4, rows=256, spacing_mm=(15.0, 1.9531, 1.9531)).ncct_hu
    folding = np.abs(load_bundle(path).translate(hu.astype(np.float32), 3) - plain_translation(hu, seed=3))
    bf16 = precision_loss(path)
    return {
        "demo bundle, folded against plain fp32: MAE, HU": float(folding.mean()),
        "demo bundle, folded against plain fp32: max, HU": float(folding.max()),
        "demo bundle, bf16 against fp32: MAE, HU": bf16.mae_hu,
        "demo bundle, bf16 against fp32: max, HU": bf16.max_hu,
        "demo bundle, bf16 against fp32: change of PSNR, dB": abs(bf16.psnr_change_db),
    }


def plain_translation(hu: np.ndarray, *, seed: int) -> np.ndarray:
    """The shipped bundle without the engine: [N, H, W] HU in and out."""
    translator = load_bundle(find_bundle("demo"))
    assert isinstance(translator, SyndiffTranslator)
    card, native = translator.card, torch.from_numpy(hu.astype(np.float32))
    noise = SeriesNoise.from_seed(seed, num_timesteps=4, nz=int(str(card.network["nz"])), matrix=card.matrix)
    source = Frame.of(card).to_model(native)
    sample = translator.sample(source.numpy(), noise.x_T, noise.z, noise.posterior_noise)
    return Frame.of(card).to_native(torch.from_numpy(sample) - source, native).numpy()


def methods(folder: Path, device: Device) -> dict[str, float]:
    """Seconds per slice of every method at its paper's configuration, from native HU to native HU, 512 x 512."""
    hu, runs = make_patient(1, slices=1).ncct_hu, {}
    stack = np.repeat(hu, GPU_SLICES if device == "cuda" else 1, axis=0)
    for name in METHODS:
        translator = load_bundle(random_bundle(folder / f"{name}-{device}", name), device=device, precision="auto")
        runs[name] = partial(translator.translate, stack, 1)
    seconds = fastest(runs, device, repeats=2)
    results = {f"{device}, {name}: s per slice": taken / len(stack) for name, taken in seconds.items()}
    if device == "cuda":
        results[f"cuda, syndiff: s for {GPU_SLICES} slices"] = seconds["syndiff"]
    return results


def random_bundle(path: Path, method: str, preset_name: str = "paper") -> Path:
    """A bundle of this method at a preset, with live random weights."""
    preset = METHODS[method].presets[preset_name]
    about = {"prediction": preset.prediction, "residual_scale": preset.residual_scale, "matrix": preset.matrix}
    card = BundleCard("bench", "0", method, {}, {}, "0" * 64, **about)
    if method in SINGLE_PASS:
        network = build_generator(preset.generator)
        card = replace(card, network=describe_generator(preset.generator))
    else:
        network = Ncsnpp(preset.network)
        shape: Mapping[str, object] = {"architecture": "ncsnpp", **preset.network.to_mapping()}
        diffusion = DiffusionConfig(num_timesteps=STEPS.get(method, 4))
        card = replace(card, network=shape, diffusion=diffusion.to_mapping())
    enliven(network, 1)
    write_bundle(path, card, serialise(network, half=False), text="Random weights.\n")
    return path


def fastest(runs: Mapping[str, Callable[[], object]], device: str, *, repeats: int = REPEATS) -> dict[str, float]:
    """Least seconds of each, run in turns after one round that does not count."""
    taken = dict.fromkeys(runs, float("inf"))
    for number in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                taken[name] = min(taken[name], time.perf_counter() - started)
    return taken


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())
