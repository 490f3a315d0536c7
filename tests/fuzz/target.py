"""What is fuzzed: a function of bytes, how many bytes and how much memory it may have, which errors are its answer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Run = Callable[[bytes], object]
KB, MB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Target:
    """One way in for bytes of an unknown sender.

    open: gives the function for a block, with whatever server or file it needs. ends: what the function may raise; any
    other exception, an AssertionError of a property among them, is a finding. seeds: valid inputs, of which others are
    made. tokens: words of the format. max_bytes: of an input. memory_bytes: what one input may take by the limits of
    the code itself; twice as much is a finding. examples: how many the short form in the tests tries.
    share: of the time, beside those of the others; more where an input takes long.
    """

    name: str
    open: Callable[[], AbstractContextManager[Run]]
    seeds: Callable[[], Sequence[bytes]]
    ends: tuple[type[BaseException], ...] = ()
    tokens: Sequence[bytes] = ()
    max_bytes: int = 64 * KB
    memory_bytes: int = 16 * MB
    examples: int = 60
    share: int = 1


def always(run: Run) -> Callable[[], AbstractContextManager[Run]]:
    """`open` of a target that needs nothing."""

    @contextmanager
    def opened() -> Iterator[Run]:
        yield run

    return opened


class Source:
    """Values drawn from the bytes of an input, for functions that take something else; all zero at the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """The next bytes, at most so many."""
        found = self._data[self._at : self._at + count]
        self._at += count
        return found

    def integer(self, most: int) -> int:
        """A whole number from 0 to `most`."""
        size = (most.bit_length() + 7) // 8
        return int.from_bytes(self.take(size)) % (most + 1)

    def flag(self) -> bool:
        """Yes in one of two cases."""
        return bool(self.integer(1))

    def pick(self, choices: Sequence[T]) -> T:
        """One of these."""
        return choices[self.integer(len(choices) - 1)]

    def text(self, words: Sequence[str]) -> str:
        """One of these words, several of them, or any text."""
        kind = self.integer(7)
        if kind < 5:
            return self.pick(words)
        if kind == 5:
            return self.pick(words) + self.pick(words)
        return self.take(self.integer(80)).decode("utf-8" if kind == 6 else "latin-1", "replace")
