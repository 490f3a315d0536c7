"""Whether a site's regular expression takes a whole text, in a time that the lengths of both bound.

Python's own matcher goes back and tries again: on a text of 64 characters that somebody else chose, `([A-Z]+)*x` takes
it longer than a scanner lives. Here every part of an expression is asked once for each position of the text, where it
may end from there. Python's parser reads the expression and its matcher judges single characters, so that each means
what it means elsewhere.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

# Neither has a public name; Python 3.11 to 3.13 have both.
_parser: Any = import_module("re._parser")
_compiler: Any = import_module("re._compiler")
_ONE_CHARACTER_OR_NONE: Final = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"})
_REPEATS: Final = frozenset({"MAX_REPEAT", "MIN_REPEAT"})
_AHEAD: Final = 1


class UnusablePattern(ValueError):
    """No regular expression, or one that cannot be judged position by position; the text says why."""


@dataclass
class _Asked:
    """A text, and what is known of it: part of the expression and position -> where it may end, a bit a position."""

    text: str
    known: dict[tuple[int, int], int] = field(default_factory=dict)


_Part = Callable[[_Asked, int], int]


class Pattern:
    """A regular expression; raises UnusablePattern."""

    def __init__(self, written: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about sets that may mean something else in a later Python
                tree = _parser.parse(written)
                self._count = 0
                self._whole = self._sequence(tree, tree.state.flags)
        except (re.error, OverflowError) as error:
            raise UnusablePattern(f"it is no regular expression: {error}") from None
        except RecursionError:
            raise UnusablePattern("its groups lie too deep in each other") from None

    def takes(self, text: str) -> bool:
        """Whether it matches the whole text, as `re.fullmatch` says."""
        return bool(self._whole(_Asked(text), 0) >> len(text) & 1)

    def _sequence(self, tree: Any, flags: int) -> _Part:
        parts = [self._part(tree.state, operation, argument, flags) for operation, argument in tree]

        def ends(asked: _Asked, position: int) -> int:
            reached = 1 << position
            for part in parts:
                reached = _from_each(part, asked, reached)
            return reached

        return self._once(ends)

    def _part(self, state: Any, operation: Any, argument: Any, flags: int) -> _Part:
        name = str(operation)
        if name in _ONE_CHARACTER_OR_NONE:
            return _single(_parser.SubPattern(state, [(operation, argument)]), flags)
        if name == "BRANCH":
            return _any_of([self._sequence(branch, flags) for branch in argument[1]])
        if name == "SUBPATTERN":
            _, added, removed, tree = argument
            return self._sequence(tree, (flags | added) & ~removed)
        if name in _REPEATS:
            least, most, tree = argument
            return self._once(_repeated(self._sequence(tree, flags), least, most))
        if name in ("ASSERT", "ASSERT_NOT") and argument[0] == _AHEAD:
            ahead, wanted = self._sequence(argument[1], flags), name == "ASSERT"
            return lambda asked, position: (1 << position) * (bool(ahead(asked, position)) == wanted)
        raise UnusablePattern(
            "it uses a back-reference, looks behind, or has a group that never gives back, which is not supported here"
        )

    def _once(self, ends: _Part) -> _Part:
        """The same part, which is asked no more than once for each position of a text."""
        self._count += 1
        number = self._count

        def known(asked: _Asked, position: int) -> int:
            key = number, position
            if key not in asked.known:
                asked.known[key] = ends(asked, position)
            return asked.known[key]

        return known


def _from_each(part: _Part, asked: _Asked, starts: int) -> int:
    """Where a part may end that begins at any of these positions."""
    reached = 0
    while starts:
        position = (starts & -starts).bit_length() - 1
        starts &= starts - 1
        reached |= part(asked, position)
    return reached


def _single(tree: Any, flags: int) -> _Part:
    match = _compiler.compile(tree, flags).match

    def ends(asked: _Asked, position: int) -> int:
        found = match(asked.text, position)
        return 0 if found is None else 1 << found.end()

    return ends


def _any_of(parts: list[_Part]) -> _Part:
    def ends(asked: _Asked, position: int) -> int:
        reached = 0
        for part in parts:
            reached |= part(asked, position)
        return reached

    return ends


def _repeated(part: _Part, least: int, most: int) -> _Part:
    def ends(asked: _Asked, position: int) -> int:
        reached = 1 << position
        # No position is left behind twice: after one round for each, nothing changes any more.
        for _ in range(min(least, len(asked.text) + 2)):
            reached = _from_each(part, asked, reached)
        new = reached
        for _ in range(min(most - least, len(asked.text) + 1)):
            new = _from_each(part, asked, new) & ~reached
            if not new:
                break
            reached |= new
        return reached

    return ends
