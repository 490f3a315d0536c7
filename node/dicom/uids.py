"""Owns how UIDs of derived objects are made; must not look at the clock or at random numbers."""

import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Fixed for ever: another value would give every derived series of the past a second identity.
_NAMESPACE: Final = uuid.UUID("6f0f2a52-5f2b-5d6e-9c0e-3a6c1d8e4b71")
_MAX_UID_CHARS: Final = 64
_MIN_HASH_DIGITS: Final = 24
_ROOT: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")


def join_parts(parts: Iterable[str]) -> str:
    """Join strings so that no two different lists give the same text: each part is preceded by its length."""
    return "".join(f"{len(part)}:{part}" for part in parts)


@dataclass(frozen=True, slots=True)
class UidFactory:
    """Makes deterministic UIDs: the same parts always give the same UID.

    root None: "2.25." and the decimal of a name-based UUID (PS3.5 B.2, RFC 9562 version 5). Otherwise `root` is an
    organisation's own root, of at most 39 characters so that 24 hash digits remain; raises ValueError for a root that
    is no UID.
    """

    root: str | None = None

    def __post_init__(self) -> None:
        if self.root is None:
            return
        longest = _MAX_UID_CHARS - _MIN_HASH_DIGITS - 1
        if len(self.root) > longest or not _ROOT.fullmatch(self.root):
            raise ValueError(
                f"UID root {self.root!r} is not allowed: digits and dots, no leading zero, at most {longest} characters"
            )

    def make(self, *parts: str) -> str:
        """UID of a list of strings, at most 64 characters."""
        name = join_parts(parts)
        if self.root is None:
            return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
        digits = str(int.from_bytes(hashlib.sha512(_NAMESPACE.bytes + name.encode()).digest()))
        return f"{self.root}.{digits[: min(39, _MAX_UID_CHARS - len(self.root) - 1)]}"

    def series_uid(
        self,
        source_series_uid: str,
        content: Iterable[tuple[str, str]],
        *,
        bundle_digest: str,
        processing_digest: str,
        run: int,
    ) -> str:
        """SeriesInstanceUID of what one processing makes of one input.

        content: (SOPInstanceUID, content digest) of every source slice, in any order. run: 1 for the first production;
        a wanted re-run of the same input counts up.
        """
        pairs = [part for pair in sorted(content) for part in pair]
        digests = (bundle_digest, processing_digest)
        return self.make("series", source_series_uid, str(len(pairs)), *pairs, *digests, str(run))

    def instance_uid(self, series_uid: str, source_sop_instance_uid: str) -> str:
        """SOPInstanceUID of the derived slice that belongs to a source slice."""
        return self.make("instance", series_uid, source_sop_instance_uid)
