"""A frozen dataclass with some fields replaced by what a person wrote; every mistake becomes one sentence."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from models.training.options import TrainingError

T = TypeVar("T")

NONE = "none"
"""How a file says that there is no value, which TOML cannot."""
ARCHITECTURE = "architecture"
"""The key that chooses between the networks which a field may hold."""
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def changed(instance: T, values: Mapping[str, object], where: str = "", *, hidden: Sequence[str] = ()) -> T:
    """A copy of a dataclass with these fields, which fit their types; a table changes fields of a field.

    `where` stands before each key in a message, `hidden` are fields that cannot be given. Raises TrainingError that
    names the key, its value, what is allowed, and the known key that is nearest.
    """
    assert is_dataclass(instance)
    assert not isinstance(instance, type)
    known = [field.name for field in fields(instance) if field.name not in hidden]
    hints = get_type_hints(type(instance))
    fitting = {}
    for key, value in values.items():
        if key not in known:
            raise TrainingError(_unknown(f"{where}{key}", key, known))
        fitting[key] = _fit(hints[key], value, getattr(instance, key), f"{where}{key}")
    try:
        fresh: T = replace(instance, **fitting)
    except (ValueError, TrainingError) as error:
        raise TrainingError(f"{where}{str(error).rstrip('.')}.") from error
    return fresh


def allowed(hint: Any) -> str:
    """What may be written for a field of this type, in words."""
    choices = _choices(hint)
    words = [f"a table with {ARCHITECTURE}" if len(_tables(hint)) > 1 else "a table"] if _tables(hint) else []
    for choice in choices:
        if choice is type(None):
            words.append(f'"{NONE}"')
        elif get_origin(choice) is Literal:
            words.append(f"one of {', '.join(map(str, get_args(choice)))}")
        elif get_origin(choice) is tuple:
            words.append(f"a list of {_of_list(get_args(choice))}")
        elif choice in _PLAIN:
            words.append(_PLAIN[choice])
    return " or ".join(words) or "a table"


def architecture_of(kind: type) -> str:
    """The name by which a file chooses a network's configuration."""
    return kind.__name__.removesuffix("Config").lower()


def _unknown(path: str, key: str, known: Sequence[str]) -> str:
    meant = get_close_matches(key, known, n=1)
    question = f" Did you mean {meant[0]}?" if meant else ""
    return f"{path} is no known key; allowed are {', '.join(known)}.{question}"


def _choices(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]


def _tables(hint: Any) -> list[type]:
    return [choice for choice in _choices(hint) if is_dataclass(choice) and isinstance(choice, type)]


def _of_list(kinds: Sequence[Any]) -> str:
    kind = {bool: "true or false", int: "whole numbers", float: "numbers", str: "texts"}[kinds[0]]
    return kind if kinds[-1] is Ellipsis else f"{len(kinds)} {kind}"


def _fit(hint: Any, value: object, current: object, path: str) -> object:
    if isinstance(value, Mapping) and _tables(hint):
        return _table(_tables(hint), value, current, path)
    for choice in _choices(hint):
        if choice is type(None) and value in (None, NONE):
            return None
    for choice in _choices(hint):
        fits, found = _as(choice, value)
        if fits:
            return found
    raise TrainingError(f"{path} is {value!r}; allowed is {allowed(hint)}.")


def _as(choice: Any, value: object) -> tuple[bool, object]:
    """Whether a value is of a plain type, and the value as it is then; a whole number is a number, true is none."""
    if get_origin(choice) is Literal:
        return value in get_args(choice), value
    if get_origin(choice) is tuple:
        kinds = get_args(choice)
        if not isinstance(value, list | tuple) or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
            return False, None
        found = [_as(kinds[0], one) for one in value]
        return all(fits for fits, _ in found), tuple(one for _, one in found)
    if get_origin(choice) is not None and issubclass(get_origin(choice), Mapping):
        return isinstance(value, Mapping), value
    if choice is float and isinstance(value, int) and not isinstance(value, bool):
        return True, float(value)
    exact = choice in _PLAIN and isinstance(value, choice) and (choice is bool or not isinstance(value, bool))
    return exact, value


def _table(kinds: Sequence[type], values: Mapping[str, object], current: object, path: str) -> object:
    """A configuration of a network, from the present one or, where another architecture is named, from its defaults."""
    names = {architecture_of(kind): kind for kind in kinds}
    rest = {key: value for key, value in values.items() if key != ARCHITECTURE}
    wanted = values.get(ARCHITECTURE)
    if wanted is None:
        return changed(kinds[0]() if current is None else current, rest, f"{path}.")
    if wanted not in names:
        raise TrainingError(f"{path}.{ARCHITECTURE} is {wanted!r}; allowed is one of {', '.join(names)}.")
    kind = names[str(wanted)]
    return changed(current if isinstance(current, kind) else kind(), rest, f"{path}.")
