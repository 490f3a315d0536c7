"""Settings are read here from the file and the environment; every mistake becomes one sentence."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError

from config.settings import Settings

ENV_PREFIX = "SYNCECT_"
CONFIG_VARIABLE = "SYNCECT_CONFIG"
_NOT_SETTINGS = {"CONFIG", "TEST_DATA", "REQUIRE_PEERS"}


class ConfigError(Exception):
    """A sentence for the operator: which file or variable, which key, and what is allowed there."""


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
    """Load `path`, or the file named by SYNCECT_CONFIG, or the defaults; raises ConfigError.

    A relative `node.data_dir` in a file is taken from the folder of that file, so that the node finds its data from
    whatever folder it is started.
    """
    path = path or _path_from_environment()
    values = _read_toml(path) if path else {}
    _check_variables(os.environ)
    try:
        loaded = _Loader(**values)
    except ValidationError as error:
        raise ConfigError(_sentence(error, path)) from error
    except SettingsError as error:
        raise ConfigError(f"environment: {error}; lists and tables are written as JSON") from error
    settings = Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})
    if path and not settings.node.data_dir.is_absolute() and f"{ENV_PREFIX}NODE__DATA_DIR" not in os.environ:
        node = settings.node.model_copy(update={"data_dir": path.absolute().parent / settings.node.data_dir})
        settings = settings.model_copy(update={"node": node})
    return settings


def _path_from_environment() -> Path | None:
    value = os.environ.get(CONFIG_VARIABLE)
    return Path(value) if value else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; `syncect config init {path}` writes a commented one") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _check_variables(environment: Mapping[str, str]) -> None:
    """A misspelt section would otherwise be ignored silently."""
    sections = {name.upper() for name in Settings.model_fields}
    for variable in environment:
        if not variable.startswith(ENV_PREFIX):
            continue
        section = variable.removeprefix(ENV_PREFIX).split("__", 1)[0]
        if section not in sections | _NOT_SETTINGS:
            raise ConfigError(f"environment: {variable} sets nothing; sections are {', '.join(sorted(sections))}")


def _sentence(error: ValidationError, path: Path | None) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    variable = ENV_PREFIX + "__".join(str(part) for part in first["loc"]).upper()
    source = f"environment {variable}" if variable in os.environ else str(path or "built-in defaults")
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(_allowed_keys(tuple(first["loc"][:-1])))
        return f"{source}: {key} is not a setting; allowed here: {allowed}"
    if first["type"] == "missing":
        return f"{source}: {key} is missing and has no default"
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
    given = "" if first["type"] == "value_error" and isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"{source}: {key}{given} is not allowed: {message}"


def _allowed_keys(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[str(part)].annotation
        model = _model_in(annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The section class inside an annotation such as `tuple[PeerSettings, ...]` or `TlsSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if argument is not Ellipsis and argument is not type(None):
            return _model_in(argument)
    return Settings
