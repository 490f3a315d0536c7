"""Makes the UIDs of derived objects from their contents, never from a clock or from random numbers."""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from config.syntax import MAX_UID_CHARS, check_uid_root

# Fixed for ever: another value would give every derived series of the past a second identity.
_NAMESPACE: Final = uuid.UUID("6f0f2a52-5f2b-5d6e-9c0e-3a6c1d8e4b71")


def join_parts(parts: Iterable[str]) -> str:
    """Join strings so that no two different lists give the same text: each part is preceded by its length."""
    return "".join(f"{len(part)}:{part}" for part in parts)


@dataclass(frozen=True, slots=True)
class UidFactory:
    """Makes deterministic UIDs: the same parts always give the same UID.

    root None: "2.25." and the decimal of a name-based UUID (PS3.5 B.2, RFC 9562 version 5). Otherwise `root` is an
    organisation's own root (`config.syntax.check_uid_root`); raises ValueError for another text.
    """

    root: str | None = None

    def __post_init__(self) -> None:
        if self.root is not None:
            check_uid_root(self.root)

    def make(self, *parts: str) -> str:
        """UID of a list of strings, at most 64 characters."""
        name = join_parts(parts)
        if self.root is None:
            return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
        digits = str(int.from_bytes(hashlib.sha512(_NAMESPACE.bytes + name.encode()).digest()))
        return f"{self.root}.{digits[: min(39, MAX_UID_CHARS - len(self.root) - 1)]}"

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
