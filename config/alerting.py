"""The settings of alerts: what they can be about, and who is told of them."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from config.fields import Host, Port, Section

AlertKind = Literal[
    "store",
    "process",
    "host",
    "disk",
    "worker",
    "device",
    "hung",
    "paused",
    "silence",
    "peer",
    "refused",
    "overdue",
    "failed",
    "held",
    "incomplete",
    "unconfirmed",
    "deaths",
    "restarts",
    "certificate",
    "leftover",
    "channel",
]
"""What an alert can be about, the most urgent first."""


def _webhook(value: str) -> str:
    if value and not (value.startswith(("http://", "https://")) and urlsplit(value).hostname):
        raise ValueError("a webhook begins with https:// or http:// and names a host")
    return value


def _mailbox(value: str) -> str:
    if not re.fullmatch(r"[!-?A-~]+@[!-?A-~]+", value):
        raise ValueError("it should be one e-mail address, such as radiotherapy-it@hospital.example")
    return value


Mailbox = Annotated[str, AfterValidator(_mailbox)]


class SmtpSettings(Section):
    """The mail server that takes alerts; a password is only ever sent inside TLS."""

    host: Host
    port: Port = 587
    sender: Mailbox
    to: Annotated[tuple[Mailbox, ...], Field(min_length=1)]
    starttls: bool = True
    username: str = ""
    password_file: Path | None = None

    @model_validator(mode="after")
    def _password_inside_tls(self) -> Self:
        if bool(self.username) != (self.password_file is not None):
            raise ValueError("username and password_file belong together: give both, or neither")
        if self.username and not self.starttls:
            raise ValueError("a username needs starttls = true, so that its password is not sent in clear")
        return self


class AlertSettings(Section):
    """Who is told what a person has to know. due_s, remind_s: seconds; `quiet` kinds are kept and told to nobody."""

    webhook: Annotated[str, AfterValidator(_webhook)] = ""
    smtp: SmtpSettings | None = None
    due_s: Annotated[float, Field(ge=10, le=7 * 86400)] = 900.0
    remind_s: Annotated[float, Field(ge=60, le=7 * 86400)] = 14400.0
    quiet: tuple[AlertKind, ...] = ()
