"""One TOML file with every knob of a run: read, checked against the dataclasses, and written with comments."""

import inspect
import json
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast, get_type_hints

from models.methods.method import MethodConfig
from models.registry import METHODS
from models.training.checked import ARCHITECTURE, NONE, allowed, architecture_of, changed
from models.training.options import TrainingError, TrainOptions

SETTINGS_FILE = "run.toml"
_NOT_MODEL = ("regime", "teacher")  # they have places of their own
_WIDTH = 110


def read_options(file: Path | None, given: Mapping[str, object]) -> TrainOptions:
    """The options of a run: defaults, then the file, then what was `given` beside it, by the names of TrainOptions.

    Tables in `given` change single keys of the file's. Raises TrainingError with a sentence for the first mistake.
    """
    values = {} if file is None else _read(file)
    where = "" if file is None else f"{file}: "
    for key, value in given.items():
        table = values.get(key, {})
        mixes = isinstance(value, Mapping) and isinstance(table, Mapping)
        values[key] = {**table, **value} if mixes else value  # type: ignore[dict-item]
    if "method" not in values:
        raise TrainingError(f"{where}method is missing; allowed are {', '.join(METHODS)}.")
    try:
        options = changed(TrainOptions(str(values["method"])), values)
        resolve(options)
    except TrainingError as error:
        raise TrainingError(f"{where}{error}") from error
    return options


def resolve(options: TrainOptions) -> MethodConfig:
    """The method's whole configuration under these options; raises TrainingError."""
    if options.method not in METHODS:
        raise TrainingError(f"method is {options.method!r}; allowed are {', '.join(METHODS)}.")
    row = METHODS[options.method]
    if options.preset not in row.presets:
        known = ", ".join(row.presets)
        raise TrainingError(
            f"preset is {options.preset!r}; {options.method} has no preset {options.preset}, it has {known}."
        )
    if (options.teacher is None) == row.needs_teacher:
        taught = ", ".join(name for name, one in METHODS.items() if one.needs_teacher)
        raise TrainingError(f"{taught} needs a teacher, and no other method takes one.")
    config = changed(row.presets[options.preset], options.model, "model.", hidden=_NOT_MODEL)
    config = replace(config, regime=changed(config.regime, options.regime, "regime."))
    if options.teacher is not None:
        config = replace(config, teacher=options.teacher)
    return cast("MethodConfig", config)


def plain_model(config: MethodConfig) -> dict[str, object]:
    """All that a configuration says beside its regime and teacher, as plain JSON values."""
    values = asdict(cast("Any", config))
    return {key: value for key, value in values.items() if key not in _NOT_MODEL}


def render(options: TrainOptions) -> str:
    """The file of these options with every key, what each may be, and what the dataclasses say of them."""
    config: Any = resolve(options)
    lines = [*_comment(TrainOptions), *_section(options, "", ("regime", "model"))]
    lines += ["", "[regime]", *_comment(type(config.regime)), *_pairs(config.regime)]
    lines += ["", "[model]", *_comment(type(config)), *_section(config, "model", _NOT_MODEL)]
    return "\n".join(lines) + "\n"


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} is not valid TOML: {error}.") from error


def _section(config: Any, path: str, hidden: tuple[str, ...] = ()) -> Iterator[str]:
    """Plain fields, then a table for each field that has fields."""
    tables = [field.name for field in fields(config) if is_dataclass(getattr(config, field.name))]
    yield from _pairs(config, (*hidden, *tables))
    hints = get_type_hints(type(config))
    for name in tables:
        if name not in hidden:
            table = getattr(config, name)
            place = f"{path}.{name}" if path else name
            yield from ("", f"[{place}]", *_comment(type(table)))
            if ARCHITECTURE in allowed(hints[name]):
                yield f"{ARCHITECTURE} = {_value(architecture_of(type(table)))}"
            yield from _section(table, place)


def _pairs(instance: Any, hidden: tuple[str, ...] = ()) -> Iterator[str]:
    hints = get_type_hints(type(instance))
    for field in fields(instance):
        if field.name not in hidden:
            pair = f"{field.name} = {_value(getattr(instance, field.name))}"
            yield f"{pair:<34}  # {allowed(hints[field.name])}"


def _comment(kind: type) -> Iterator[str]:
    for paragraph in inspect.cleandoc(kind.__doc__ or "").split("\n\n"):
        yield from (f"# {line}" for line in textwrap.wrap(paragraph, _WIDTH))


def _value(value: object) -> str:
    """A value in TOML, of which JSON has the same texts, numbers, and lists."""
    if value is None:
        return _value(NONE)
    if isinstance(value, float) and value.is_integer():
        return f"{value:.1f}" if abs(value) < 1e15 else repr(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value)
