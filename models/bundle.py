"""The bundle folder: its card, its weights' checksum, and where shipped bundles lie. This module loads no torch."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from models.errors import ModelsError

SCHEMA_VERSION = 1
CARD_FILE = "bundle.json"
WEIGHTS_FILE = "weights.safetensors"
TEXT_FILE = "CARD.md"
HU_WINDOW = (-40.0, 400.0)
"""The literature's window, low and high; training takes it, and a bundle carries its own."""
VALUE_SCALING = "hu_window to [-1, 1], linear"
PREDICTIONS = ("image", "residual")
LEVELS_HU = (40.0, 200.0)
"""Enhancement of the blood pool, in HU, that can be taught and asked for."""
_FARTHEST_MM = 50.0

# What changes a pixel of the result belongs to the identity of the model; names, texts and metrics do not.
_PIXEL_KEYS = ("method", "network", "diffusion", "prediction", "residual_scale", "hu_window", "matrix", "value_scaling")
# Younger than some bundles, which lack them and keep their identity.
_YOUNGER_PIXEL_KEYS = ("context_mm", "blood_level_hu")

# Name and version become DICOM text (LO and SH values, PS3.5 6.2), a line of a log and a column of a table.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")


class BundleError(ModelsError):
    """A bundle is missing, incomplete, damaged, or says something that this version cannot run."""


@dataclass(frozen=True)
class Envelope:
    """What the training data covered; outside it nothing is known about the result. Ranges are (low, high).

    body_part: the region in one word. body_parts: terms of BodyPartExamined that lie in it, capitals, "" for a header
    that names none. noise_hu: standard deviation in even soft tissue. None: the card does not say, so nobody judges it.
    """

    modality: str = "CT"
    body_part: str = "CHEST"
    pixel_spacing_mm: tuple[float, float] = (0.5, 1.5)
    slice_spacing_mm: tuple[float, float] = (1.0, 10.0)
    noise_hu: tuple[float, float] | None = None
    age_years: tuple[float, float] | None = None
    body_parts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class BundleCard:
    """The parsed bundle.json: what a model is, what it was trained on, what it was measured to do, and its limits.

    `hu_window` is the (low, high) HU range mapped linearly to [-1, 1]; `matrix` the M of the M x M model images.
    `prediction` is "image" (x_0 is the network's output) or "residual" (x_0 is the source plus `residual_scale` times
    the output, clipped to [-1, 1]). `metrics` is a list of rows, one of them named "identity". `trust` says how the
    bundle did on real scans and under attack: `measured_on`, a sentence, and `figures`, a list of `section`, `figure`,
    `value` and `aim`; it is empty where nobody measured that.
    `context_mm`: the network sees, beside a slice, those that lie so far from it along the slice normal, in mm; empty
    for a network of single slices. `blood_level_hu`: the enhancement of the blood pool that was taught, in HU, the same
    for every patient by convention; None where every patient's own was taught.
    """

    name: str
    version: str
    method: str
    network: Mapping[str, object]
    diffusion: Mapping[str, object]
    weights_sha256: str
    prediction: str = "image"
    residual_scale: float = 1.0
    hu_window: tuple[float, float] = HU_WINDOW
    matrix: int = 256
    value_scaling: str = VALUE_SCALING
    context_mm: tuple[float, ...] = ()
    blood_level_hu: float | None = None
    training: Mapping[str, object] = field(default_factory=dict)
    envelope: Envelope = Envelope()
    metrics: tuple[Mapping[str, object], ...] = ()
    trust: Mapping[str, object] = field(default_factory=dict)
    licence: str = "Apache-2.0"
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """Identity of the model, 64 hex digits: SHA-256 over the weights' checksum and what influences pixels."""
        plain = self.to_mapping()
        keys = ["weights_sha256", *_PIXEL_KEYS, *(key for key in _YOUNGER_PIXEL_KEYS if plain[key])]
        text = json.dumps({key: plain[key] for key in keys}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_mapping(self) -> dict[str, object]:
        """The card as plain JSON values, in the order of the fields of bundle.json."""
        plain: dict[str, object] = {"schema_version": self.schema_version}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Envelope):
                value = {f.name: _as_list(getattr(value, f.name)) for f in fields(Envelope)}
            plain[item.name] = _as_list(value)
        return plain


def read_card(path: Path) -> BundleCard:
    """Parse and validate `path`/bundle.json without touching the weights; raises BundleError."""
    file = path / CARD_FILE
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} is no model bundle: it has no {CARD_FILE}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise BundleError(f"{file} must hold one JSON object.")
    return parse_card(values, where=str(file))


def parse_card(values: Mapping[str, object], *, where: str = CARD_FILE) -> BundleCard:
    """Validate the values of a bundle.json; raises BundleError naming `where`, the key and what is allowed."""
    if values.get("schema_version") != SCHEMA_VERSION:
        raise BundleError(
            f"{where}: schema_version is {values.get('schema_version')!r}; this version reads {SCHEMA_VERSION}."
        )
    known = {item.name for item in fields(BundleCard)}
    if unknown := sorted(set(values) - known):
        raise BundleError(f"{where}: unknown key {unknown[0]}; known are {', '.join(sorted(known))}.")
    required = ("name", "version", "method", "network", "diffusion", "weights_sha256")
    if missing := [key for key in required if key not in values]:
        raise BundleError(f"{where}: {missing[0]} is missing.")
    plain = dict(values)
    _require(where, plain, ("name", "version", "method", "weights_sha256"), str, "a non-empty text")
    _require(where, plain, ("licence", "intended_use", "value_scaling"), str, "a text", optional=True)
    _require(where, plain, ("network", "diffusion", "training", "envelope", "trust"), dict, "an object", optional=True)
    _require(where, plain, ("metrics", "limits", "hu_window", "context_mm"), list, "a list", optional=True)
    for key in ("hu_window", "metrics", "limits", "context_mm"):
        if key in plain:
            plain[key] = tuple(plain[key])  # type: ignore[arg-type]
    if "envelope" in plain:
        plain["envelope"] = _parse_envelope(where, plain["envelope"])
    card = BundleCard(**plain)  # type: ignore[arg-type]
    _check_values(where, card)
    return card


def verify_bundle(path: Path) -> BundleCard:
    """Read the card and check that the weights are whole and the ones it names; raises BundleError."""
    card = read_card(path)
    read_weights(path, card)
    return card


def read_weights(path: Path, card: BundleCard) -> bytes:
    """Read the serialised safetensors of a bundle, once, and check these very bytes against its card."""
    weights = path / WEIGHTS_FILE
    try:
        data = weights.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path} has no {WEIGHTS_FILE}.") from None
    found = hashlib.sha256(data).hexdigest()
    if found != card.weights_sha256:
        raise BundleError(f"{weights} has SHA-256 {found}, but {CARD_FILE} names {card.weights_sha256}: do not use it.")
    return data


def write_bundle(path: Path, card: BundleCard, weights: bytes, *, text: str) -> BundleCard:
    """Write a bundle folder from serialised safetensors; returns the card with the checksum of these weights.

    The card is written last, so that a folder with a card has everything it names.
    """
    path.mkdir(parents=True, exist_ok=True)
    values = card.to_mapping() | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    complete = parse_card(values)
    (path / CARD_FILE).unlink(missing_ok=True)
    (path / WEIGHTS_FILE).write_bytes(weights)
    (path / TEXT_FILE).write_text(text, encoding="utf-8")
    (path / CARD_FILE).write_text(json.dumps(complete.to_mapping(), indent=2) + "\n", encoding="utf-8")
    return complete


def shipped_folder() -> Path:
    """Folder of the bundles that come with the package."""
    return Path(__file__).parent / "bundles"


def list_bundles(folder: Path | None = None) -> list[tuple[Path, BundleCard]]:
    """Every bundle in `folder` (default: the shipped ones) with its card, sorted by name; raises BundleError."""
    root = folder or shipped_folder()
    found = sorted(child.parent for child in root.glob(f"*/{CARD_FILE}"))
    return [(path, read_card(path)) for path in found]


def find_bundle(name_or_path: str | Path) -> Path:
    """Folder of the bundle with this path or, for a bare name, of the shipped one; raises BundleError if none."""
    as_path = Path(name_or_path)
    if (as_path / CARD_FILE).is_file():
        return as_path.resolve()
    shipped = shipped_folder() / as_path.name
    if as_path.name == str(name_or_path) and (shipped / CARD_FILE).is_file():
        return shipped
    names = ", ".join(path.name for path, _ in list_bundles()) or "none"
    raise BundleError(f"No bundle {name_or_path}: it is neither a folder with {CARD_FILE} nor shipped ({names}).")


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _require(
    where: str, values: Mapping[str, object], keys: Sequence[str], kind: type, words: str, *, optional: bool = False
) -> None:
    for key in keys:
        if key in values and (not isinstance(values[key], kind) or (not optional and not values[key])):
            raise BundleError(f"{where}: {key} is {values[key]!r}; it must be {words}.")


def _parse_envelope(where: str, values: object) -> Envelope:
    if not isinstance(values, dict) or set(values) - {item.name for item in fields(Envelope)}:
        names = ", ".join(item.name for item in fields(Envelope))
        raise BundleError(f"{where}: envelope may hold only {names}.")
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    envelope = Envelope(**plain)
    _check_envelope(where, envelope)
    return envelope


def _check_envelope(where: str, envelope: Envelope) -> None:
    for key in ("modality", "body_part"):
        if not isinstance(getattr(envelope, key), str):
            raise BundleError(f"{where}: envelope.{key} must be a text.")
    parts = envelope.body_parts
    if parts is not None and not (isinstance(parts, tuple) and all(isinstance(part, str) for part in parts)):
        raise BundleError(f"{where}: envelope.body_parts must be a list of texts.")
    for key, above, words in (
        ("pixel_spacing_mm", 0.0, "two positive numbers"),
        ("slice_spacing_mm", 0.0, "two positive numbers"),
        ("noise_hu", -1.0, "two numbers from 0"),
        ("age_years", -1.0, "two numbers from 0"),
    ):
        limits = getattr(envelope, key)
        if limits is not None and not _is_range(limits, above):
            raise BundleError(f"{where}: envelope.{key} is {_as_list(limits)!r}; it must be {words}, the lower first.")
    if envelope.pixel_spacing_mm is None or envelope.slice_spacing_mm is None:
        raise BundleError(f"{where}: envelope.pixel_spacing_mm and envelope.slice_spacing_mm must be given.")


def _is_range(limits: object, above: float) -> bool:
    numbers = isinstance(limits, tuple) and len(limits) == 2 and all(isinstance(v, int | float) for v in limits)
    if not isinstance(limits, tuple) or not numbers:
        return False
    low, high = limits
    return above < low <= high < math.inf and (above >= 0 or low >= 0)


def _check_values(where: str, card: BundleCard) -> None:
    for key, text in {"name": card.name, "version": card.version}.items():
        if not _NAME.fullmatch(text):
            raise BundleError(f"{where}: {key} is {text!r}; it may have 32 letters, digits and . _ + -, no more.")
    low_high = card.hu_window
    numbers = len(low_high) == 2 and all(isinstance(v, int | float) and math.isfinite(v) for v in low_high)
    if not numbers or low_high[0] >= low_high[1]:
        raise BundleError(f"{where}: hu_window is {list(low_high)}; it must be two numbers, the lower first.")
    if not isinstance(card.matrix, int) or not 8 <= card.matrix <= 2048:
        raise BundleError(f"{where}: matrix is {card.matrix!r}; it must be a whole number from 8 to 2048.")
    if card.prediction not in PREDICTIONS:
        raise BundleError(f"{where}: prediction is {card.prediction!r}; allowed are {', '.join(PREDICTIONS)}.")
    if not isinstance(card.residual_scale, int | float) or not 0 < card.residual_scale <= 2:
        raise BundleError(f"{where}: residual_scale is {card.residual_scale!r}; it must lie above 0 and at most at 2.")
    if card.value_scaling != VALUE_SCALING:
        raise BundleError(f"{where}: value_scaling is {card.value_scaling!r}; this version knows {VALUE_SCALING!r}.")
    if not all(isinstance(v, int | float) and 0 < abs(v) <= _FARTHEST_MM for v in card.context_mm):
        words = f"distances in mm other than 0, at most {_FARTHEST_MM:g}"
        raise BundleError(f"{where}: context_mm is {list(card.context_mm)}; it must be a list of {words}.")
    level = card.blood_level_hu
    if level is not None and not (isinstance(level, int | float) and LEVELS_HU[0] <= level <= LEVELS_HU[1]):
        raise BundleError(
            f"{where}: blood_level_hu is {level!r}; it must lie from {LEVELS_HU[0]:g} to {LEVELS_HU[1]:g}."
        )
    if not _is_sha256(card.weights_sha256):
        raise BundleError(f"{where}: weights_sha256 must be 64 hexadecimal digits.")


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)
