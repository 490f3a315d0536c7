"""How the shipped bundles are trained on invented patients that are made while they train; see `demo_bundles`.

Processes of their own make patients of `models.phantom.teaching`, and the run shows all that have arrived, changed anew
each time. It ends by the clock, so that no two runs have the same bits; the learning rate follows the clock too.
"""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.bundle import Envelope, read_card
from models.diffusion import DiffusionConfig
from models.methods.method import Batch, Method, describe_bundle, write_method_bundle
from models.methods.optimisation import Compute
from models.methods.syndiff_paired import PRESETS, SyndiffPaired
from models.methods.syndiff_student import as_first_step, load_teacher
from models.networks.config import NcsnppConfig
from models.networks.discriminators import TimeDiscriminatorConfig
from models.phantom import PhantomPatient, make_patient, make_teaching_patient
from models.training.about import PHANTOM_AGE_YEARS, PHANTOM_BODY_PARTS
from models.training.augmentation import Augmentation
from models.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.training.resident import Packed, ResidentSlices, pack
from models.translators.slicewise import computes_bf16

BLOOD_LEVEL_HU = 110.0
CONTEXT_MM = (-8.0, -4.0, 4.0, 8.0)
MATRIX, ROWS, SLICES = 256, 512, 12
NETWORK = NcsnppConfig(nf=24, ch_mult=(1, 2, 4, 6), num_res_blocks=1, nz=16, z_emb_dim=64, n_mlp=2, patch_size=2)
AUGMENTATION = Augmentation(
    noise_hu=(1.0, 16.0),
    shift_hu=2.0,
    sharpen=(-0.4, 0.5),
    rotate_deg=4.0,
    move_px=6.0,
    scale=(0.93, 1.1),
    lesions=0.4,
)
# Narrower than what was trained on: at 0.65 mm the aorta of a real scan dropped out in two slices.
ENVELOPE = Envelope(
    pixel_spacing_mm=(0.7, 1.2),
    slice_spacing_mm=(1.0, 8.0),
    noise_hu=(3.0, 24.0),
    age_years=PHANTOM_AGE_YEARS,
    body_parts=PHANTOM_BODY_PARTS,
)
LIMITS = (
    "Trained on a procedural phantom, whose anatomy is simpler than any patient's; no patient.",
    "Blood is drawn at one level by convention: nobody may read a patient's perfusion from it.",
    "Masses, airless lung and effusions are drawn as if they did not enhance: no source tells whether they do.",
    "Not for clinical use before it was commissioned on the department's own patients.",
)
STATE_FILE = "state.json"
FIRST_SEED = 700_000
_LEVELS_MM = ((0.25, (-200.0, -115.0)), (0.4, (0.0, 50.0)), (0.7, (70.0, 175.0)))
"""Up to which share of the patients the middle of the volume lies where, in mm above the carina; others: anywhere."""
_OLDER_EVERY = 4
_FIRST_PATIENTS = 12
_KEPT_EVERY_S = 60.0
_SHOWN_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """How one shipped bundle differs from the preset "demo" of syndiff_paired; `version` is that of its weights."""

    version: str
    changes: dict[str, Any]
    words: str


RECIPES = {
    "demo": Recipe(
        "2",
        {
            "adversarial_weight": 1.0,
            "l1_weight": 20.0,
            "time_discriminator": TimeDiscriminatorConfig(widths=(16, 32, 64, 128, 128, 128), t_emb_dim=64),
        },
        "four steps, with the adversarial term of the publication",
    ),
    "demo-1step": Recipe("3", {"diffusion_steps": 1, "lr_generator": 6e-4}, "one step, L1 alone"),
}


@dataclass(frozen=True)
class Options:
    """The command line."""

    name: str
    out: Path
    minutes: float
    workers: int
    patients: int
    device: str
    batch: int
    resume: bool
    teacher: Path | None


def build(name: str) -> Method:
    """The method of a shipped bundle before its first step."""
    changes = dict(RECIPES[name].changes)
    steps = changes.pop("diffusion_steps", None)
    preset = PRESETS["demo"]
    regime: dict[str, Any] = {
        "lr_generator": changes.pop("lr_generator", preset.regime.lr_generator),
        "crop": None,
        "crop_share": 0.0,
        "crop_batch": None,
        "ema_decay": 0.995,
        "warmup_steps": 100,
    }
    config = replace(preset, regime=replace(preset.regime, **regime), network=NETWORK, context_mm=CONTEXT_MM, **changes)
    if steps is not None:
        config = replace(config, diffusion=replace(config.diffusion, num_timesteps=steps))
    return SyndiffPaired(config)


def make_patient_packed(seed: int) -> tuple[Packed, float]:
    """Slices of one invented patient for `ResidentSlices.add`, blood at BLOOD_LEVEL_HU, and their distance in mm."""
    torch.set_num_threads(1)
    patient = _older_patient(seed) if seed % _OLDER_EVERY == 0 else _teaching_patient(seed)
    source = patient.ncct_clean_hu
    target = source + patient.enhancement_hu * np.float32(BLOOD_LEVEL_HU / patient.e_hu)
    return pack(source, target, MATRIX), patient.spacing_mm[0]


def _teaching_patient(seed: int) -> PhantomPatient:
    """Most scans are reconstructed close around the body; slices are mostly 2.5 to 5 mm apart.

    A quarter lies about the upper abdomen, where contents of the gut look like blood, some about the arch, and a third
    about shoulders and neck, whose vessels are small.
    """
    random = np.random.default_rng([seed, 1])
    fov_mm = random.uniform(330, 460) if random.random() < 0.65 else random.uniform(460, 620)
    slice_mm = random.uniform(2.5, 5.0) if random.random() < 0.6 else random.uniform(1.0, 8.0)
    where = random.random()
    level_mm = next((random.uniform(*span) for share, span in _LEVELS_MM if where < share), None)
    spacing_mm = (slice_mm, fov_mm / ROWS, fov_mm / ROWS)
    return make_teaching_patient(seed, slices=SLICES, rows=ROWS, spacing_mm=spacing_mm, centre_z_mm=level_mm)


def _older_patient(seed: int) -> PhantomPatient:
    """A patient of the older phantom, so that what earlier bundles were measured on is not forgotten."""
    random = np.random.default_rng(seed)
    pixel_mm, slice_mm = random.uniform(450, 620) / ROWS, random.uniform(2.5, 6.0)
    return make_patient(
        seed,
        slices=SLICES,
        rows=ROWS,
        spacing_mm=(slice_mm, pixel_mm, pixel_mm),
        centre_z_mm=random.uniform(-130.0, 40.0),
    )


class Patients:
    """Patients that `workers` processes make one after the other, at most `most`; they come as they are ready."""

    def __init__(self, pool: Pool, seed: int, *, most: int, ahead: int) -> None:
        """Begin with `ahead` of them; patient n has the seed `seed` + n."""
        self._pool, self._seeds = pool, iter(range(seed, seed + most))
        self._waiting: list[AsyncResult[tuple[Packed, float]]] = []
        for _ in range(ahead):
            self._ask()

    def take(self, *, wait: bool) -> list[tuple[Packed, float]]:
        """All that are ready; with `wait` at least one, unless no more will come."""
        if wait and self._waiting:
            self._waiting[0].wait()
        done = [result for result in self._waiting if result.ready()]
        self._waiting = [result for result in self._waiting if result not in done]
        for _ in done:
            self._ask()
        return [result.get() for result in done]

    def _ask(self) -> None:
        for seed in islice(self._seeds, 1):
            self._waiting.append(self._pool.apply_async(make_patient_packed, (seed,)))


def patients_of(run: "Run", pool: Pool) -> Patients:
    """Those that a run sees; one that goes on after a stop sees others than before."""
    options = run.options
    return Patients(pool, FIRST_SEED + 10 * run.step, most=options.patients, ahead=2 * options.workers)


@dataclass
class Run:
    """One training: what it has taken and how long it has run, with the stops left out."""

    options: Options
    method: Method
    slices: ResidentSlices
    step: int = 0
    seconds: float = 0.0
    spacings_mm: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, options: Options) -> "Run":
        """A fresh run, or that of the folder's checkpoint."""
        method = build(options.name)
        fast = options.device == "cuda" or computes_bf16()
        method.parts.compute = Compute(options.device, "bf16" if fast else "fp32")
        method.parts.to(options.device)
        run = cls(options, method, ResidentSlices(CONTEXT_MM, options.device))
        if checkpoint := load_checkpoint(options.out):
            method.parts.load_state_dict(checkpoint.state)
            run.step = checkpoint.step
            run.seconds = float(json.loads((options.out / STATE_FILE).read_text(encoding="utf-8"))["seconds"])
        elif options.teacher is not None:
            run.begin_as(options.teacher)
        return run

    def begin_as(self, teacher: Path) -> None:
        """Take the weights of a bundle of more steps, so that the one step begins as its first, to the bit."""
        card, network = load_teacher(str(teacher))
        weights = as_first_step(network, DiffusionConfig.from_mapping(card.diffusion).num_timesteps - 1)
        for student in (self.method.parts.networks["generator"], *self.method.parts.averages.values()):
            student.load_state_dict(weights)

    def add(self, patients: list[tuple[Packed, float]]) -> None:
        """Take what arrived."""
        for packed, spacing_mm in patients:
            self.slices.add(packed, spacing_mm)
            self.spacings_mm.append(spacing_mm)

    def train(self, patients: Patients) -> None:
        """Steps until the time is over."""
        regime, whole_s = self.method.config.regime, 60 * self.options.minutes
        while len(self.spacings_mm) < min(_FIRST_PATIENTS, self.options.patients):
            self.add(patients.take(wait=True))
        before_s, begun, kept_s = self.seconds, time.monotonic(), self.seconds
        random = np.random.default_rng([regime.seed, self.step])
        while self.seconds < whole_s:
            self.method.parts.set_rates(self.seconds / whole_s * regime.epochs, self.step)
            losses = self.method.training_step(self._batch(random), self.step)
            self.step += 1
            self.add(patients.take(wait=False))
            self.seconds = before_s + time.monotonic() - begun
            if self.step % _SHOWN_EVERY == 0:
                self._show(losses)
            if self.seconds - kept_s > _KEPT_EVERY_S:
                self.keep()
                kept_s = self.seconds

    def _batch(self, random: np.random.Generator) -> Batch:
        """Whole slices: a crop hides from the network where in the body it looks."""
        numbers = random.integers(len(self.slices), size=self.options.batch).tolist()
        return self.slices.batch(numbers, AUGMENTATION, (self.method.config.regime.seed, self.step))

    def keep(self) -> None:
        """Write the bundle and all that a resumed run needs."""
        options, slices = self.options, self.slices
        words = {
            "data": "procedural phantom that teaches (models.phantom.teaching); no real patient",
            "patients": len(self.spacings_mm),
            "slices": len(slices),
            "target": f"the source plus the true enhancement, blood at {BLOOD_LEVEL_HU:g} HU in every patient",
            "recipe": RECIPES[options.name].words,
            "augmentation": asdict(AUGMENTATION),
            "regime": asdict(self.method.config.regime),
            "batch": options.batch,
            "precision": self.method.parts.compute.precision,
            "teacher": read_card(options.teacher).digest if options.teacher is not None else None,
            "steps": self.step,
            "minutes": round(self.seconds / 60, 1),
            "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
            "command": f"python -m models.training.demo_bundles {options.name} --minutes {options.minutes:g} "
            f"--workers {options.workers} --patients {options.patients} --device {options.device} "
            f"--batch {options.batch}",
            "ended": "by the clock: the run cannot be repeated to the bit",
            "torch": torch.__version__,
        }
        card = describe_bundle(
            options.name,
            RECIPES[options.name].version,
            training=words,
            envelope=ENVELOPE,
            blood_level_hu=BLOOD_LEVEL_HU,
            intended_use="Demonstration, research and comparison of methods. Not for clinical use.",
            limits=LIMITS,
        )
        write_method_bundle(self.method, options.out / "bundle", card)
        (options.out / STATE_FILE).write_text(json.dumps({"seconds": self.seconds}), encoding="utf-8")
        save_checkpoint(options.out, Checkpoint(self.step, None, self.method.parts.state_dict()))

    def _show(self, losses: Mapping[str, float]) -> None:
        terms = ", ".join(f"{key} {value:.4f}" for key, value in losses.items())
        sys.stdout.write(f"{self.seconds:6.0f} s, step {self.step}, {len(self.slices)} slices: {terms}\n")
        sys.stdout.flush()
