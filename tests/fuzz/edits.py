"""How an input becomes another one: small edits, each a function of numbers, so that Hypothesis can draw them too."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.fuzz.hostile import TOKENS

_NUMBERS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_MOST_REPEATS: Final = 20_000


class Edit(NamedTuple):
    """kind: an index of `KINDS`. at, size: where, and how much. choice: which token, number or other input."""

    kind: int
    at: int
    size: int
    choice: int


def draw(chance: random.Random) -> Edit:
    """Any edit; small counts are the most likely ones."""
    count = chance.randrange(1 << chance.choice((2, 4, 8, 12)))
    return Edit(chance.randrange(len(KINDS)), chance.randrange(1 << 24), count, chance.randrange(1 << 24))


def edited(data: bytes, edits: Sequence[Edit], others: Sequence[bytes], tokens: Sequence[bytes], most: int) -> bytes:
    """The input with every edit made, at most `most` bytes. tokens: words of its format, beside the hostile ones."""
    words = (*tokens, *tokens, *TOKENS) if tokens else TOKENS
    for edit in edits:
        data = KINDS[edit.kind % len(KINDS)](data, edit, others, words)[:most]
    return data


def _place(data: bytes, edit: Edit) -> int:
    return edit.at % (len(data) + 1)


def _flip(data: bytes, edit: Edit, *_: object) -> bytes:
    if not data:
        return data
    at = edit.at % len(data)
    return data[:at] + bytes((data[at] ^ (1 << edit.choice % 8),)) + data[at + 1 :]


def _byte(data: bytes, edit: Edit, *_: object) -> bytes:
    at = _place(data, edit)
    return data[:at] + bytes((edit.choice % 256,)) + data[at + 1 :]


def _number(data: bytes, edit: Edit, *_: object) -> bytes:
    at, size = _place(data, edit), (1, 2, 4)[edit.size % 3]
    value = _NUMBERS[edit.choice % len(_NUMBERS)] & ((1 << 8 * size) - 1)
    return data[:at] + value.to_bytes(size, "big" if edit.size & 4 else "little") + data[at + size :]


def _add(data: bytes, edit: Edit, *_: object) -> bytes:
    """A length becomes a little larger or smaller."""
    at, size = _place(data, edit), (1, 2, 4)[edit.size % 3]
    order: str = "big" if edit.size & 4 else "little"
    value = int.from_bytes(data[at : at + size], order) + edit.choice % 33 - 16  # type: ignore[arg-type]
    return data[:at] + (value % (1 << 8 * size)).to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]


def _insert(data: bytes, edit: Edit, _others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = _place(data, edit)
    return data[:at] + words[edit.choice % len(words)] + data[at:]


def _overwrite(data: bytes, edit: Edit, _others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at, word = _place(data, edit), words[edit.choice % len(words)]
    return data[:at] + word + data[at + len(word) :]


def _delete(data: bytes, edit: Edit, *_: object) -> bytes:
    at = _place(data, edit)
    return data[:at] + data[at + 1 + edit.size :]


def _truncate(data: bytes, edit: Edit, *_: object) -> bytes:
    return data[: _place(data, edit)]


def _repeat(data: bytes, edit: Edit, *_: object) -> bytes:
    at = _place(data, edit)
    piece = data[at : at + 1 + edit.size % 64]
    return data[:at] + piece * (1 + edit.choice % _MOST_REPEATS) + data[at:]


def _copy(data: bytes, edit: Edit, *_: object) -> bytes:
    """A piece from elsewhere in it."""
    at, start = _place(data, edit), edit.choice % (len(data) + 1)
    return data[:at] + data[start : start + 1 + edit.size] + data[at:]


def _splice(data: bytes, edit: Edit, others: Sequence[bytes], _words: Sequence[bytes]) -> bytes:
    other = others[edit.choice % len(others)]
    return data[: _place(data, edit)] + other[edit.size % (len(other) + 1) :]


KINDS: Final = (_flip, _byte, _number, _add, _insert, _overwrite, _delete, _truncate, _repeat, _copy, _splice)
