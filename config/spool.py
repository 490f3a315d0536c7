"""Where the files of a node are kept besides its own folder: an S3-compatible object store that several hosts share."""

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ValidationInfo, field_validator

from config.fields import Section, check_url, is_loopback

_PLACE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)*/?")


def _place(value: str) -> str:
    """A bucket and a prefix in it, without a slash at the end."""
    parts = value.removeprefix("s3://").split("/")
    if value and (not _PLACE.fullmatch(value) or {".", ".."} & set(parts)):
        raise ValueError("it should be s3://bucket or s3://bucket/prefix")
    return value.rstrip("/")


def _server(value: str) -> str:
    wanted = "https://host or https://host:9000, without a user and a path"
    return check_url(value, wanted, with_path=False) if value else value


class SpoolSettings(Section):
    """The object store beside the spool's folder, which is then staging and cache; "" is the folder alone.

    url: bucket and prefix. endpoint: the server, "" for AWS. allow_http: whether images may cross the network in clear.
    credentials_file: its one line is ACCESS_KEY_ID:SECRET_ACCESS_KEY; without it, the environment of AWS tools counts.
    ca: who signed the server's certificate, beside those that this machine trusts.
    """

    url: Annotated[str, AfterValidator(_place)] = ""
    allow_http: bool = False
    endpoint: Annotated[str, AfterValidator(_server)] = ""
    region: str = "us-east-1"
    credentials_file: Path | None = None
    ca: Path | None = None

    # Validators of single keys: those of a model would run for the default, too, in every command.
    @field_validator("endpoint")
    @classmethod
    def _images_inside_tls(cls, value: str, info: ValidationInfo) -> str:
        server = urlsplit(value)
        if server.scheme == "http" and not info.data.get("allow_http") and not is_loopback(server.hostname or ""):
            raise ValueError(
                "with this endpoint images would cross the network in clear; write https://, or allow_http = true"
            )
        return value

    @field_validator("ca")
    @classmethod
    def _ca_of_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not info.data.get("endpoint", "").startswith("https://"):
            raise ValueError("ca belongs to an endpoint that begins with https://")
        return value

    @property
    def bucket(self) -> str:
        """The name of the bucket."""
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What every key begins with, without slashes around it; "" where nothing does."""
        return self.url.removeprefix("s3://").partition("/")[2]
