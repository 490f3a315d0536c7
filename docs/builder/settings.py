"""The reference of settings: their types, and the comments of the file with the defaults, which say what each means."""

import importlib.resources
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from config.load import CONFIG_VARIABLE, ENV_PREFIX
from config.settings import Settings

_SECTION = re.compile(r"^(?:# )?\[+([a-z_.]+)\]+\s*(?:#\s*(.*))?$")
_KEY = re.compile(r"^(?:# )?([a-z_]+) = (.*)$")
_MORE = re.compile(r"^(?:#\s{6,}|\s+)#\s?(.*)$|^#\s+#\s?(.*)$")
_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
}
_BOUNDS = {"ge": "at least {}", "le": "at most {}", "gt": "more than {}", "min_length": "at least {} of them"}


_OTHER_KIND = {"destination": 'destination with kind = "dicomweb"'}
"""What a second block of a list is called here, whose tables are of another kind."""


@dataclass(frozen=True)
class Setting:
    """One key: its section, its type and what is allowed in words, its default as it is written, and its meaning."""

    section: str
    key: str
    kind: str
    default: str
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable that overrides it; "" inside a list, which is given as a whole."""
        if self.section.startswith(("destination", "route", "eligibility.rules")):
            return ""
        return f"{ENV_PREFIX}{self.section.replace('.', '__')}__{self.key}".upper()


def default_file() -> str:
    """The file that `syncect config init` writes."""
    return importlib.resources.files("config").joinpath("default.toml").read_text(encoding="utf-8")


def meanings() -> dict[tuple[str, str], str]:
    """What the comments of the default file say about each section (key "") and each key."""
    found: dict[tuple[str, str], list[str]] = {}
    section = ""
    last: tuple[str, str] | None = None
    for line in default_file().splitlines():
        if header := _SECTION.match(line):
            section = _OTHER_KIND[header[1]] if (header[1], "") in found else header[1]
            last = (section, "")
            found[last] = [header[2] or ""]
        elif key := _KEY.match(line):
            last = (section, key[1])
            found[last] = [_comment(key[2])]
        elif last and (more := _MORE.match(line)):
            found[last].append(more[1] or more[2] or "")
    return {name: _sentence(" ".join(words)) for name, words in found.items()}


def _comment(rest: str) -> str:
    """What stands behind a value's `#`; one inside quotes is part of the value."""
    unquoted = re.sub(r'"[^"]*"', lambda text: "x" * len(text[0]), rest)
    _, mark, _ = unquoted.partition("#")
    return rest[unquoted.index("#") + 1 :].strip() if mark else ""


def _sentence(words: str) -> str:
    words = " ".join(words.split())
    return f"{words[:1].upper()}{words[1:].removesuffix('.')}." if words else ""


def settings() -> list[Setting]:
    """Every key that a settings file may have."""
    return list(_of_section("", Settings, meanings()))


def _of_section(name: str, model: type[BaseModel], known: dict[tuple[str, str], str]) -> Iterator[Setting]:
    for key, field in model.model_fields.items():
        tables = _tables_in(field.annotation)
        inner = tables[0] if tables else None
        path = f"{name}.{key}".lstrip(".")
        if inner is None or (name, key) in known:
            default = "required" if field.is_required() else _written(field.default)
            yield Setting(name, key, _kind(field, inner), default, _meaning(known, name, key))
        else:
            yield from _of_section(path, inner, known)
            for other in tables[1:]:
                yield from _of_section(_OTHER_KIND[path], other, known)


def _meaning(known: dict[tuple[str, str], str], section: str, key: str) -> str:
    """What the file says of a key; a block of another kind says nothing again of what is the same."""
    first = next((name for name, other in _OTHER_KIND.items() if other == section), section)
    return known.get((section, key)) or known.get((first, key), "")


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for one in get_args(annotation) for model in _tables_in(one)]


def _kind(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    words = _type(field.annotation)
    bounds = [
        text.format(getattr(one, name))
        for one in field.metadata
        for name, text in _BOUNDS.items()
        if hasattr(one, name)
    ]
    keys = (
        [f"`{name}`" + (" (required)" if key.is_required() else "") for name, key in inner.model_fields.items()]
        if inner
        else []
    )
    return ", ".join([words, *bounds]) + (f" of {', '.join(keys)}" if keys else "")


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin is tuple:
        return f"list: {_type(get_args(annotation)[0])}"
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in get_args(annotation) if one is not type(None))
    return "table" if _tables_in(annotation) else _NAMES[annotation]


def _written(default: Any) -> str:
    """A default as the file writes it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return "[" + ", ".join(_written(one) for one in default) + "]"
    if default is None:
        return "none"
    return f'"{default}"' if isinstance(default, (str, Path)) else str(default)


def settings_page() -> str:
    """The page: one table for each section."""
    known, shown = meanings(), settings()
    lines = [
        "# Every setting",
        "",
        "This page is made from the program when the site is built. `syncect config init node.toml` writes the same",
        f"as a file with comments; `--config FILE` or the variable `{CONFIG_VARIABLE}` names it; `syncect config",
        "validate` checks it. A key may also be set by the environment variable that stands beside it. A list or",
        "table is written as JSON there.",
        "",
    ]
    for section in dict.fromkeys(one.section for one in shown):
        lines += [f"## {section}", ""]
        if words := known.get((section, "")):
            lines += [words, ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        lines += [_row(one) for one in shown if one.section == section]
        lines.append("")
    return "\n".join(lines) + "\n"


def _row(one: Setting) -> str:
    variable = f"<br>`{one.variable}`" if one.variable else ""
    meaning = one.meaning.replace("<", "&lt;")  # what stands for a value is no HTML
    cells = (f"`{one.key}`{variable}", one.kind, f"`{one.default}`", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
