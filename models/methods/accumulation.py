"""One training step whose batch is too large for the memory: its parts pass one by one, and the weights move once.

A discriminator that moves before the generators see it makes a step in several passes: each part passes as far as the
next network that has to move, which then moves by the sum of all parts' gradients, and all parts begin anew. What moves
after the generators waits for the end, since nothing after it looks at the moved networks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


class Paused(Exception):
    """A part of a batch has come to a network that has to move before the part goes on; no error."""


@dataclass
class Shares:
    """What the parts of one batch have come to: which groups of networks have moved, and which have gradients.

    `number` is the part that passes now.
    """

    count: int
    number: int = 0
    _values: list[dict[str, dict[str, float]]] = field(default_factory=list)
    _added: list[str] = field(default_factory=list)
    _moved: set[str] = field(default_factory=set)
    _past_generators: bool = False

    def __post_init__(self) -> None:
        """No part has a value yet."""
        self._values = [{} for _ in range(self.count)]

    @property
    def stream(self) -> tuple[int, ...]:
        """What makes the noise of this part another than that of the other parts."""
        return (self.number,)

    def one_pass(self, step: Callable[[int], dict[str, float]]) -> list[dict[str, float]]:
        """Let all parts pass once; their results, or none where a network has to move before they go on."""
        results = []
        for number in range(self.count):
            self.number = number
            self._past_generators = False
            try:
                results.append(step(number))
            except Paused:
                continue
        return results

    def has_moved(self, group: str) -> bool:
        """Whether this group has moved in an earlier pass of this step."""
        return group in self._moved

    def values_of(self, group: str) -> dict[str, float]:
        """The terms of this part when the group's gradients were added."""
        return self._values[self.number][group]

    def begins(self, group: str) -> bool:
        """Whether this is the first gradient of the group."""
        return group not in self._added

    def adds(self, group: str, values: dict[str, float], *, last: bool) -> bool:
        """Enter that the group's gradients were added; True where it has to move before this part goes on.

        last: it is the generators', after which no network looks at one that moved.
        """
        if group not in self._added:
            self._added.append(group)
        self._values[self.number][group] = values
        self._past_generators = self._past_generators or last
        return not self._past_generators

    def take_added(self) -> list[str]:
        """The groups that are to move now, in their order; from now on they count as moved."""
        added, self._added = self._added, []
        self._moved.update(added)
        return added
