"""Settings are read here from the file and the environment; every mistake becomes one sentence."""

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from config.destinations import DicomwebSettings
from config.settings import AskedPeer, DestinationSettings, Settings

ENV_PREFIX = "SYNCECT_"
CONFIG_VARIABLE = "SYNCECT_CONFIG"
_NOT_SETTINGS = {"CONFIG", "TRACEBACK", "TEST_DATA", "REQUIRE_PEERS", "PREVIOUS_END", "STARTER"}


_OF_TWO_KINDS = "count_from"
_KINDS = {"str", AskedPeer.__name__}  # what pydantic puts into a location behind it
_DESTINATIONS: dict[Any, type[BaseModel]] = {"dimse": DestinationSettings, "dicomweb": DicomwebSettings}  # likewise
_MOST_SHOWN = 200  # characters of a key or a value in a sentence
_SECRETS = {
    "webhook",
    "database_url",
    "url",
    "endpoint",
}  # a sentence about them goes into reports, and they may hold a password
_WANTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "it should be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "it should be a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "it should be true or false"),
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "it should be a table"),
    **dict.fromkeys(("tuple_type", "list_type"), "it should be a list"),
    "string_type": "it should be a text in quotes",
}


class ConfigError(Exception):
    """Sentences for the operator, one for each mistake: which file or variable, which key, and what is allowed."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class _Loader(Settings, BaseSettings):
    """`Settings` filled from the file (as init values) and, with precedence, from the environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file over defaults; no .env file and no secrets folder are looked for."""
        return env_settings, init_settings


def load_settings(path: Path | None = None) -> Settings:
    """Load `path`, or the file named by SYNCECT_CONFIG, or the defaults; raises ConfigError with all mistakes.

    A relative `node.data_dir` in a file is taken from the folder of that file, so that the node finds its data from
    whatever folder it is started.
    """
    path = settings_file(path)
    values = _read_toml(path) if path else {}
    # Of a name with an underscore pydantic-settings would take an option of its own, such as where to read secrets.
    options = [key for key in values if key.startswith("_")]
    mistakes = _misspelt_variables(os.environ) + [_no_setting(str(path), (key,), _allowed_keys(())) for key in options]
    try:
        loaded = _Loader(**{key: value for key, value in values.items() if key not in options})
    except ValidationError as error:
        raise ConfigError(*mistakes, *_sentences(error, path)) from error
    except SettingsError as error:
        raise ConfigError(*mistakes, _no_json(str(error))) from error
    if mistakes:
        raise ConfigError(*mistakes)
    settings = Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})
    if path and not settings.node.data_dir.is_absolute() and f"{ENV_PREFIX}NODE__DATA_DIR" not in os.environ:
        node = settings.node.model_copy(update={"data_dir": path.absolute().parent / settings.node.data_dir})
        settings = settings.model_copy(update={"node": node})
    return settings


def settings_file(path: Path | None = None) -> Path | None:
    """The settings file in force: `path`, or the one named by SYNCECT_CONFIG; None where there are only defaults."""
    value = os.environ.get(CONFIG_VARIABLE)
    return path or (Path(value) if value else None)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `syncect config init {path}` writes a commented one") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # tomllib passes on what int() says of too many digits
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: lists or tables lie too deep in each other") from None


def _misspelt_variables(environment: Mapping[str, str]) -> list[str]:
    """A misspelt section would otherwise be ignored silently."""
    sections = {name.upper() for name in Settings.model_fields}
    known = sections | _NOT_SETTINGS
    return [
        f"environment: {variable} sets nothing; sections are {', '.join(sorted(sections))}"
        + _meant_variable(variable.removeprefix(ENV_PREFIX), sections, known)
        for variable in sorted(environment)
        if variable.startswith(ENV_PREFIX) and variable.removeprefix(ENV_PREFIX).split("__", 1)[0] not in known
    ]


def _meant_variable(written: str, sections: set[str], known: set[str]) -> str:
    """Two underscores stand between section and key; one of them is the usual mistake."""
    section, _, key = written.partition("_")
    if section in sections:
        return f"; did you mean {ENV_PREFIX}{section}__{key}?"
    section, separator, key = written.partition("__")
    return _suggestion(section, known, ENV_PREFIX, separator + key)


def _suggestion(written: str, allowed: Collection[str], before: str = "", after: str = "") -> str:
    """A question that names what was probably meant; nothing where no allowed word is similar."""
    meant = get_close_matches(written, allowed, n=1)
    return f"; did you mean {before}{meant[0]}{after}?" if meant else ""


def _no_json(message: str) -> str:
    """pydantic-settings names the field, and its own class for the environment."""
    field = re.search(r'field "(\w+)"', message)
    variable = f" {ENV_PREFIX}{field[1].upper()}" if field else ""
    return f"environment{variable}: it cannot be read; lists and tables are written as JSON"


def _sentences(error: ValidationError, path: Path | None) -> list[str]:
    """One sentence for each mistake, also where a value fits none of the two kinds that it may have."""
    found = error.errors()
    tables = {details["loc"][:-1] for details in found if isinstance(details["input"], dict)}
    return list(
        dict.fromkeys(
            _sentence(details, path)
            for details in found
            if details["loc"][-1:] != ("str",) or details["loc"][:-1] not in tables
        )
    )


def _sentence(details: ErrorDetails, path: Path | None) -> str:
    location = _location(details["loc"])
    key = _key(location)
    source = _source(location, path)
    if details["type"] == "extra_forbidden":
        return _no_setting(source, location, _allowed_keys(details["loc"][:-1]))
    if details["type"] == "union_tag_invalid":
        kinds = " or ".join(repr(kind) for kind in _DESTINATIONS)
        return f"{source}: {key}.kind = {_shown(details['input']['kind'])} is not allowed: it should be {kinds}"
    if details["type"] == "missing":
        return f"{source}: {key} is missing and has no default"
    message = _WANTED.get(details["type"]) or details["msg"].removeprefix("Value error, ").replace(
        "Input should be", "it should be"
    )
    is_told = not isinstance(details["input"], dict) and not _SECRETS & set(location)
    given = f" = {_shown(details['input'])}" if is_told else ""
    return f"{source}: {key}{given} is not allowed: {message}"


def _location(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The keys and numbers that lead to a value, without what pydantic puts between them."""
    if len(loc) > 2 and loc[0] == "destination" and loc[2] in _DESTINATIONS:
        loc = (*loc[:2], *loc[3:])
    pairs = zip((None, *loc), loc, strict=False)
    return tuple(part for before, part in pairs if part not in _KINDS or before != _OF_TWO_KINDS)


def _no_setting(source: str, location: tuple[int | str, ...], allowed: Collection[str]) -> str:
    told = f"{source}: {_key(location)} is not a setting; allowed here: {', '.join(allowed)}"
    return told + _suggestion(str(location[-1]), allowed)


def _key(location: tuple[int | str, ...]) -> str:
    """The key on one line: TOML allows any character in one."""
    written = ".".join(str(part) for part in location) or "the file"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in written)[:_MOST_SHOWN]


def _shown(value: object) -> str:
    """A value on one line, or its beginning."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of too many digits"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _source(location: tuple[int | str, ...], path: Path | None) -> str:
    """The variable that gave a value, or a table or list around it; else the file."""
    for end in range(len(location), 0, -1):
        variable = ENV_PREFIX + "__".join(str(part) for part in location[:end]).upper()
        if variable in os.environ:
            return f"environment {variable}"
    return str(path or "built-in defaults")


def _allowed_keys(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for number, part in enumerate(location):
        if isinstance(part, int) or part in _KINDS:
            continue
        if number == 2 and location[0] == "destination":
            model = _DESTINATIONS[part]
            continue
        model = _model_in(model.model_fields[str(part)].annotation) or Settings
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section class inside an annotation such as `tuple[PeerSettings, ...]` or `TlsSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for argument in get_args(annotation) if (model := _model_in(argument))), None)
