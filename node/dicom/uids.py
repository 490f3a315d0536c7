"""UIDs of derived objects, and the keys, digests and seeds that follow from a series' contents.

All are functions of their arguments: no clock, no random number.
"""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import numpy as np
from numpy.typing import NDArray

from config.syntax import MAX_UID_CHARS, check_uid_root
from node.dicom.constants import HEADER_POLICY_VERSION
from node.dicom.headers import SliceHeader
from node.version import software_version

# Fixed for ever: another value would give every derived series of the past a second identity.
_NAMESPACE: Final = uuid.UUID("6f0f2a52-5f2b-5d6e-9c0e-3a6c1d8e4b71")
# Packages whose version may change a pixel or a header: with ours they belong to the identity of a result.
_RESULT_PACKAGES: Final = ("torch", "numpy", "scipy", "highdicom")


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

        content: (`SliceHeader.image_name`, content digest) of every source slice, in any order. run: 1 for the first
        production; a wanted re-run of the same input counts up.
        """
        pairs = [part for pair in sorted(content) for part in pair]
        digests = (bundle_digest, processing_digest)
        return self.make("series", source_series_uid, str(len(pairs)), *pairs, *digests, str(run))

    def instance_uid(self, series_uid: str, source_image_name: str) -> str:
        """SOPInstanceUID of the derived slice that belongs to a source slice, by its `SliceHeader.image_name`."""
        return self.make("instance", series_uid, source_image_name)


def processing_digest(arithmetic: str) -> str:
    """Hex SHA-256 over all of ours that may change a pixel or a header, the bundle apart.

    arithmetic as the translator reports it, such as "cpu AVX512, 2 threads, fp32": other arithmetic gives other pixels,
    and other pixels never share a UID.
    """
    packages = [f"syncect={software_version()}", *(f"{name}={version(name)}" for name in _RESULT_PACKAGES)]
    parts = ("processing", f"headers={HEADER_POLICY_VERSION}", *packages, arithmetic)
    return hashlib.sha256(join_parts(parts).encode()).hexdigest()


def job_key(headers: Iterable[SliceHeader], bundle_digest: str, device: str) -> str:
    """Hex SHA-256 that is the same for the same images, bundle and device settings, in whatever order they arrived.

    No version is in it: images that come again after an upgrade find the result that a planner may have drawn on, and
    do not get another one because a line of code changed. A person who wants one says so.
    """
    return hashlib.sha256(join_parts(("job", *_content_parts(headers), bundle_digest, device)).encode()).hexdigest()


def seed_of(hu: NDArray[np.float32], window_hu: tuple[float, float]) -> int:
    """Seed of the noise, 0 to 2**63 - 1: a function of what a network sees of HU [z, y, x] in the closed window alone.

    So the same anatomy gets the same noise in whatever transfer syntax, number format and orientation it was sent, if
    `hu` is turned as the network sees it.
    """
    digest = hashlib.sha256(join_parts(("seed", *(str(size) for size in hu.shape))).encode())
    for plane in hu:
        digest.update(np.clip(plane, *window_hu).astype("<f4").tobytes())
    return int.from_bytes(digest.digest()[:8]) >> 1


def _content_parts(headers: Iterable[SliceHeader]) -> list[str]:
    pairs = sorted({(h.series_uid, h.image_name, h.content_sha256) for h in headers})
    return [str(len(pairs)), *(part for pair in pairs for part in pair)]
