"""Files that hold a secret: what no other user of the machine may read."""

import os
import re
import stat
from pathlib import Path
from typing import Final

_MAX_BYTES: Final = 1 << 16
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1


class UnusableSecret(Exception):
    """A file with a secret cannot be used; the text says why, in one sentence, and nothing of what it holds."""


def is_open_to_others(status: os.stat_result) -> bool:
    """Whether users of this machine beside the node's may read or change a file.

    One that root keeps may be read by the group of the node: so a hospital may install it, and Kubernetes mounts it.
    """
    may = stat.S_IRGRP if status.st_uid == 0 else 0
    return bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~may)


def read_secret(path: Path) -> str:
    """The first line of a file, without space around it; raises UnusableSecret."""
    try:
        with path.open("rb") as file:
            if is_open_to_others(os.fstat(file.fileno())):
                raise UnusableSecret(f"{path} holds a secret, and other users of this machine can read or change it")
            line = file.read(_MAX_BYTES).decode().partition("\n")[0].strip()
    except OSError as error:
        raise UnusableSecret(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise UnusableSecret(f"{path} is no text") from None
    if not line or not line.isprintable():
        raise UnusableSecret(f"{path} holds no secret in its first line")
    return line


def read_token(path: Path) -> str:
    """The bearer token in a file; raises UnusableSecret."""
    token = read_secret(path)
    if not _TOKEN.fullmatch(token):
        raise UnusableSecret(f"{path} holds no bearer token (RFC 6750) in its first line")
    return token
