"""Digests of compressed instances, made in a process of its own: a decoder of somebody else that crashes or is slow
harms nobody, least of all the receiver.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from node.dicom.constants import UNCOMPRESSED
from node.dicom.headers import SliceHeader, read_header
from node.errors import UnreadableInstance

log = logging.getLogger(__name__)

COMMAND: Final = [sys.executable, "-P", "-m", "node.dicom.decoding_apart"]
_START_S: Final = 60.0
_SLICE_S: Final = 5.0  # RLE, which is decoded in Python, takes 0.1 s at 512 x 512
_NICER: Final = 5
_NONE: Final = "-"


def with_decoded_digests(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """The same headers, those of compressed instances with the digest of their decoded content.

    headers: as `read_header` makes them without decoding. Where the decoder fails, crashes or hangs, the digest stays
    that of the encapsulated bytes; the job says why when it decodes them. Starts a process only where it must decode.
    """
    compressed = [header.path for header in headers if header.transfer_syntax_uid not in UNCOMPRESSED]
    digests = _ask(compressed) if compressed else {}
    return [replace(header, content_sha256=digests.get(header.path, header.content_sha256)) for header in headers]


def _ask(paths: Sequence[Path]) -> dict[Path, str]:
    asked = "".join(f"{path.absolute()}\n" for path in paths)
    try:
        answer = subprocess.run(
            COMMAND,
            input=asked.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_START_S + _SLICE_S * len(paths),
            check=False,
        )
    except subprocess.TimeoutExpired:
        log.warning("decoding %d compressed instances took too long; they count by their bytes", len(paths))
        return {}
    digests = answer.stdout.decode("ascii").split()
    if answer.returncode or len(digests) != len(paths):
        log.warning("the decoder of %d compressed instances crashed; they count by their bytes", len(paths))
        return {}
    return {path: digest for path, digest in zip(paths, digests, strict=True) if digest != _NONE}


def _answer() -> None:
    """Read paths from standard input and write the digest of each to standard output."""
    os.nice(_NICER)
    for line in sys.stdin:
        try:
            sys.stdout.write(read_header(Path(line.rstrip("\n"))).content_sha256 + "\n")
        except UnreadableInstance:
            sys.stdout.write(f"{_NONE}\n")


if __name__ == "__main__":
    _answer()
