"""Checks of the model bundle and of the device, without loading a model in this process."""

import json
import subprocess
import sys
from typing import Any, Final

import models
from config.settings import Settings
from models import BundleCard
from models.errors import ModelsError
from node.bootstrap.bundles import bundles_in_use
from node.operate.doctor.report import Line, Lines, Mark

DEVICE_S: Final = 8.0  # torch alone takes seconds to load on a busy machine
_SHOWN: Final = ("modality", "body_part", "pixel_spacing_mm", "slice_spacing_mm", "age_years")
_GIB: Final = 1024**3
_LITTLE_GB: Final = 2.0


def bundle(settings: Settings) -> Lines:
    """Whether each bundle is whole; its licence, what it was trained for, and whether it was measured."""
    for one in bundles_in_use(settings):
        yield from _one(one.key, one.name, settings)
    if settings.model.shadow:
        yield from _one("model.shadow", settings.model.shadow, settings, translates=False)


def _one(key: str, name: str, settings: Settings, *, translates: bool = True) -> Lines:
    try:
        card = models.verify_bundle(models.find_bundle(name))
    except (ModelsError, OSError) as error:
        remedy = f"copy the bundle again, or set {key} to another (`syncect models ls`)"
        yield Line("bundle", Mark.FAIL, f"{key} = {name!r} cannot be used: {error}", remedy)
        return
    yield Line("bundle", Mark.OK, f"{key}: {_described(card)}")
    if translates and (why := models.why_unproven(card)):
        yield _unproven(card, why, settings)


def _unproven(card: BundleCard, why: str, settings: Settings) -> Line:
    """An unproven bundle: the node does not start with it, or it is allowed by name."""
    if card.name in settings.model.allow_unproven:
        words = f"unproven, and allowed by model.allow_unproven: {why}"
        return Line("bundle", Mark.WARN, words, "measure it, or use a commissioned bundle")
    remedy = (
        f'measure it (`syncect evaluate --write-card`), use another one, or set model.allow_unproven = ["{card.name}"]'
    )
    return Line("bundle", Mark.FAIL, f"the node does not start with it: {why}", remedy)


def _described(card: BundleCard) -> str:
    """Name, digest, licence, when it was trained and on what kind of scans, as far as its card says."""
    trained = next((card.training[key] for key in ("finished_at", "trained_at", "date") if key in card.training), "")
    envelope = ", ".join(f"{key} {value}" for key in _SHOWN if (value := getattr(card.envelope, key)))
    return (
        f"{card.name} {card.version} ({card.digest[:12]}), weights as the card says, licence {card.licence}, "
        f"trained {trained or 'at a time that its card does not say'}, envelope: {envelope or 'none'}"
    )


def device(settings: Settings) -> Lines:
    """What torch sees, in a process of its own that loads no model and is ended when it takes too long."""
    wanted = settings.model.device
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "models.device_seen"],
            capture_output=True,
            text=True,
            timeout=DEVICE_S - 0.5,
            check=False,
        )
    except subprocess.TimeoutExpired:
        found = f"torch did not answer within {DEVICE_S - 0.5:g} s"
        yield Line("device", Mark.WARN, found, "`nvidia-smi` says whether the driver hangs; else run it once more")
        return
    try:
        seen: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")[:200]
        yield Line("device", Mark.FAIL, f"torch cannot be used: {last}", "install syncect anew, or mend the driver")
        return
    yield from _judged(wanted, seen)


def _judged(wanted: str, seen: dict[str, Any]) -> Lines:
    gpus = "; ".join(
        f"{one['name']}, {one['free_bytes'] / _GIB:.1f} of {one['total_bytes'] / _GIB:.1f} GB free"
        for one in seen["gpus"]
    )
    built = f"built for CUDA {seen['cuda']}" if seen["cuda"] else "built without CUDA"
    words = f"model.device = {wanted!r}, auto is {seen['auto']}; torch {seen['torch']} {built}; {gpus or 'no GPU'}"
    if wanted == "cuda" and not gpus:
        remedy = "`nvidia-smi` must name a GPU, and torch be built for CUDA; or set model.device"
        yield Line("device", Mark.FAIL, words, remedy)
    elif gpus and wanted != "cpu" and seen["gpus"][0]["free_bytes"] < _LITTLE_GB * _GIB:
        yield Line("device", Mark.WARN, words, "`nvidia-smi` names what else uses the GPU's memory; our worker may")
    else:
        yield Line("device", Mark.OK, words)
