"""Digests of compressed instances by their decoded content, so that one image has one digest however it was sent."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from node.dicom.constants import UNCOMPRESSED
from node.dicom.content import content_sha256
from node.dicom.frames import SlicesOfFile
from node.dicom.headers import SliceHeader, read_slices
from node.dicom.pixels import decode_slice, pixel_format_of
from node.dicom.sandbox import SANDBOX, DecoderStopped
from node.errors import UnreadableInstance

log = logging.getLogger(__name__)

# A CT slice takes some hundredths of a second, so that these are more than what a whole series of a scanner takes.
MAX_TOTAL_S: Final = 30.0
MAX_TOTAL_S_PER_SLICE: Final = 0.1
MAX_SLOW_S: Final = 4.0


def with_decoded_digests(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """The same headers, those of compressed instances with the digest of their decoded content.

    headers: as `read_header` makes them without decoding. Where an image cannot be decoded, its digest stays that of
    the encapsulated bytes; the job says why when it decodes it. So do all digests of a series of which one image took
    too much, or all of them more than `MAX_TOTAL_S` and `MAX_TOTAL_S_PER_SLICE` for each, or more than `MAX_SLOW_S` for
    those that fail or are slow: such a series is one job all the same, and only a re-send in another transfer syntax is
    not known to be the same.
    """
    answer = list(headers)
    compressed = [number for number, one in enumerate(headers) if one.transfer_syntax_uid not in UNCOMPRESSED]
    if not compressed:
        return answer
    with SANDBOX.budget(total_s=MAX_TOTAL_S + MAX_TOTAL_S_PER_SLICE * len(compressed), slow_s=MAX_SLOW_S):
        opened = _Opened()
        for number in compressed:
            try:
                answer[number] = replace(headers[number], content_sha256=opened.decoded_sha256(headers[number]))
            except DecoderStopped as error:
                log.warning(
                    "%s; the images of its series count by their bytes", error, extra={"event": "images_not_read"}
                )
                return list(headers)
            except UnreadableInstance:
                continue
    return answer


class _Opened:
    """The file that was read last: the frames of a multi-frame object come one after the other."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._slices: SlicesOfFile | None = None

    def decoded_sha256(self, header: SliceHeader) -> str:
        if self._slices is None or header.path != self._path:
            self._slices, self._path = None, header.path  # its memory first
            self._slices = read_slices(header.path)
        ds = self._slices[(header.frame or 1) - 1]
        form = pixel_format_of(ds)
        return content_sha256(ds, form, decode_slice(ds, form).sound)
