"""Digests of compressed instances by their decoded content, so that one image has one digest however it was sent."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from node.dicom.constants import UNCOMPRESSED
from node.dicom.content import content_sha256
from node.dicom.headers import SliceHeader, read_dataset
from node.dicom.pixels import decode_slice, pixel_format_of
from node.dicom.sandbox import DecoderStopped
from node.errors import UnreadableInstance

log = logging.getLogger(__name__)

MAX_FAILURES_S: Final = 5.0


def with_decoded_digests(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """The same headers, those of compressed instances with the digest of their decoded content.

    headers: as `read_header` makes them without decoding. Where an image cannot be decoded, its digest stays that of
    the encapsulated bytes; the job says why when it decodes it. Nothing more is decoded after one that took too much,
    or after `MAX_FAILURES_S` for nothing: a JPEG-LS image that was cut takes CharLS seconds.
    """
    answer, failures_s = list(headers), 0.0
    for number, header in enumerate(headers):
        if header.transfer_syntax_uid in UNCOMPRESSED:
            continue
        if failures_s > MAX_FAILURES_S:
            log.warning("decoding failed for %.0f s; the images that are left count by their bytes", failures_s)
            break
        begin_s = time.monotonic()
        try:
            answer[number] = replace(header, content_sha256=_decoded_sha256(header.path))
        except DecoderStopped as error:
            log.warning("%s; the images behind it count by their bytes", error)
            break
        except UnreadableInstance:
            failures_s += time.monotonic() - begin_s
    return answer


def _decoded_sha256(path: Path) -> str:
    ds = read_dataset(path)
    form = pixel_format_of(ds)
    return content_sha256(ds, form, decode_slice(ds, form).sound)
