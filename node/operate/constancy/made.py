"""What came of the phantom of a constancy run, by whichever way."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node.errors import NodeError


class Unreached(NodeError):
    """The receiver of the node, or the destination, cannot be reached."""


@dataclass(frozen=True)
class Made:
    """A result on the disk. environment: of who made it. times: seconds by stage. held: what a gate said, or ""."""

    paths: tuple[Path, ...]
    bundle: str
    digest: str
    environment: Mapping[str, str]
    times: Mapping[str, float]
    held: str = ""
