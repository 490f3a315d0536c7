"""Passwords: hashed with argon2, compared with constant work, and never more than two at once.

One comparison takes 64 MiB and some tens of milliseconds of every core: a flood of logins must take neither from the
receiver. Nothing here loads the page, so that `users` starts at once.
"""

import threading
import unicodedata
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MIN_CHARS: Final = 12
MAX_CHARS: Final = 1024
AT_ONCE: Final = 2
WAITING: Final = 6

_HASHER: Final = PasswordHasher()  # RFC 9106, low memory


class TooBusy(Exception):
    """So many people log in at this moment that one more must try again later."""


def check_password(password: str) -> None:
    """Raise ValueError, with what is asked for, where a password cannot be taken."""
    if len(password) < MIN_CHARS:
        raise ValueError(f"a password has at least {MIN_CHARS} characters; several words make a good one")
    if len(password) > MAX_CHARS:
        raise ValueError(f"a password has at most {MAX_CHARS} characters")
    if not password.isprintable():
        raise ValueError("a password has no control characters")


def hash_password(password: str) -> str:
    """What is kept of a password that `check_password` takes."""
    return _HASHER.hash(_normal(password))


class Comparer:
    """Compares passwords with hashes, `AT_ONCE` at a time; of others at most `WAITING` wait for their turn."""

    def __init__(self) -> None:
        self._turn = threading.BoundedSemaphore(AT_ONCE)
        self._places = threading.BoundedSemaphore(AT_ONCE + WAITING)
        self._nobodys = hash_password("the password of nobody")

    def matches(self, password: str, secret: str | None) -> bool:
        """Whether a password belongs to a hash; None takes as long and is never right. Raises TooBusy."""
        if not self._places.acquire(blocking=False):
            raise TooBusy
        try:
            with self._turn:
                return _verify(password, secret or self._nobodys) and secret is not None
        finally:
            self._places.release()


def newer_hash(password: str, secret: str) -> str | None:
    """A stronger hash of a password that was right, where this version makes stronger ones."""
    return hash_password(password) if _HASHER.check_needs_rehash(secret) else None


def _verify(password: str, secret: str) -> bool:
    try:
        return _HASHER.verify(secret, _normal(password[:MAX_CHARS])) and len(password) <= MAX_CHARS
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def _normal(password: str) -> str:
    """Keyboards write one and the same letter in two ways."""
    return unicodedata.normalize("NFC", password)
