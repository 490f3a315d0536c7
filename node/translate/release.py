"""A result that a gate doubted and a person released says so in itself: the doubt, who overruled it, and why.

A held series was never sent, so its files may get one more sentence before they leave. Nothing else in them changes:
the new value is put between the bytes that were there, and what was written is read back and compared.
"""

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from node.dicom.charsets import own_encoding, writable
from node.dicom.elements import ascii_text, charset_of, element_bytes, tag_of
from node.dicom.headers import MAX_FILE_BYTES, load_dataset
from node.dicom.quiet import quiet_pydicom
from node.errors import Permanent
from node.translate.proof import ProofFailed, flush_and_digest

# Where the sentence stands, and how many characters fit there: ST and LT (PS3.5 6.2). The first with room gets it.
_PLACES: Final = (("DerivationDescription", 1024), ("ImageComments", 10240))
_ENOUGH_CHARACTERS: Final = 240
_MAX_REASON, _MAX_ACTOR = 120, 80  # an actor of the history has at most 80 characters too
_FLUSHING_THREADS: Final = 4


def override_sentence(doubt: str, actor: str, reason: str, limit: int = 1024, charset: Sequence[str] = ()) -> str:
    """What the files say of a release, in at most `limit` printable characters, at least 240.

    charset: the values of SpecificCharacterSet. What cannot be written in it becomes ASCII: accents are dropped, and
    what has no ASCII form becomes a question mark. The doubt is shortened before the reason: it also stands in the
    history of the job.
    """
    encoding = own_encoding(charset)
    actor, reason, doubt = (writable(text, encoding) for text in (actor, reason, doubt))
    actor, doubt = _cut(actor, _MAX_ACTOR), doubt.rstrip(".")
    room = limit - len("HELD: . Released by : ") - len(actor)
    reason = _cut(reason, max(_MAX_REASON, room - len(doubt)))
    return f"HELD: {_cut(doubt, room - len(reason))}. Released by {actor}: {reason}"


def write_released(held: Sequence[tuple[Path, str]], doubt: str, actor: str, reason: str, out_dir: Path) -> list[str]:
    """Write the files of a held series into `out_dir`, each with the sentence about its release; flushed and proven.

    held: each file and the SHA-256 that it had when it was produced. Returns the new SHA-256 of each file, hex. Raises
    ProofFailed where a file is not the one that was produced, or what was written differs in anything else.
    """
    targets = [out_dir / path.name for path, _ in held]
    for (path, sha256), target in zip(held, targets, strict=True):
        if not path.is_file():  # a pipe or a device would be read for ever
            raise ProofFailed(f"{path.name} of the held series is no longer in the spool; retry the job")
        if path.stat().st_size > MAX_FILE_BYTES or flush_and_digest(path) != sha256:
            raise ProofFailed(f"{path.name} of the held series is not the file that was produced; retry the job")
        _write(path, target, doubt, actor, reason)
    with ThreadPoolExecutor(_FLUSHING_THREADS) as disk:
        return list(disk.map(flush_and_digest, targets))


def _write(path: Path, target: Path, doubt: str, actor: str, reason: str) -> None:
    with quiet_pydicom():
        held = load_dataset(path)
    keyword, limit = _place(held)
    present, charset = ascii_text(held, keyword), charset_of(held)
    said = override_sentence(doubt, actor, reason, limit - len(present) - 1, charset)
    value = f"{present} {said}".encode(own_encoding(charset))
    target.write_bytes(_with_value(path.read_bytes(), held, keyword, value))
    with quiet_pydicom():
        _prove(held, load_dataset(target), keyword, value)


def _place(held: Dataset) -> tuple[str, int]:
    for keyword, limit in _PLACES:
        if tag_of(keyword) in held and limit - len(ascii_text(held, keyword)) - 1 >= _ENOUGH_CHARACTERS:
            return keyword, limit
    raise Permanent("the files of the held series have no room for the reason of their release; retry the job")


def _with_value(data: bytes, held: Dataset, keyword: str, value: bytes) -> bytes:
    """The bytes of a file in Explicit VR Little Endian in which one short text element has another value."""
    element: Any = held.get_item(tag_of(keyword))
    if not isinstance(element, RawDataElement):
        raise ProofFailed(f"{keyword} of a held file cannot be found in its bytes")
    start, end = element.value_tell, element.value_tell + element.length
    value += b" " * (len(value) % 2)
    return data[: start - 2] + struct.pack("<H", len(value)) + value + data[end:]


def _prove(held: Dataset, written: Dataset, keyword: str, value: bytes) -> None:
    tags = list(held.keys())
    if held.file_meta != written.file_meta or tags != list(written.keys()):
        raise ProofFailed("a released file has other attributes than the held one")
    changed = [tag for tag in tags if _value(held, tag) != _value(written, tag)]
    if changed != [tag_of(keyword)] or element_bytes(written, tag_of(keyword)) != value:
        raise ProofFailed("a released file differs from the held one in more than the reason of its release")


def _value(ds: Dataset, tag: Any) -> Any:
    element = ds.get_item(tag)
    return element.value if isinstance(element, RawDataElement) else element


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 3]}..."
