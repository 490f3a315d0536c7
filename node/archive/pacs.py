"""Series of an archive that a DICOMweb server has: listed by QIDO-RS, retrieved image by image by WADO-RS."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from config.destinations import DicomwebSettings
from config.settings import Settings
from node.archive.index import DICOMWEB, Entry, is_uid
from node.archive.moved import Lacking
from node.dicom.elements import ascii_text
from node.dicom.headers import read_dataset
from node.errors import Misconfigured, Permanent, Retryable, UnreadableInstance
from node.network.requestor import Timeouts

IMAGE_BYTES: Final = 512 << 20
"""Bound of one image: also an Enhanced CT of two thousand frames is smaller."""


class Busy(Retryable):
    """A server asks to be left alone; wait_s: for so many seconds, 0 where it does not say."""

    def __init__(self, why: str, wait_s: float) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def server_of(settings: Settings, entry: Entry) -> DicomwebSettings:
    """The `[[destination]]` of kind "dicomweb" that a source names; raises Misconfigured."""
    name = entry.source.removeprefix(DICOMWEB)
    for one in settings.destination:
        if one.name == name and isinstance(one, DicomwebSettings):
            return one
    raise Misconfigured('a source of the index names no [[destination]] of kind = "dicomweb"')


def check_servers(settings: Settings, entries: Iterable[Entry]) -> None:
    """Raise Misconfigured where a source names a server that the settings do not have."""
    for source in {entry.source for entry in entries if entry.source.startswith(DICOMWEB)}:
        server_of(settings, Entry(source))


def retrieve(server: DicomwebSettings, entry: Entry, folder: Path) -> list[Path]:
    """All images that the server lists of a series, as files in an empty folder; never only a part of them.

    Raises Permanent where it lists none or has no such series, Lacking where it does not have all that it lists, Busy
    where it does not list or send them.
    """
    from node.network.bounded_http import NoAnswer  # noqa: PLC0415 # an extra package, which few need
    from node.network.dicomweb import connect  # noqa: PLC0415

    files: list[Path] = []
    absent: NoAnswer | None = None
    try:
        uids = _listed(server, entry)
        with connect(server, Timeouts(), answer_bytes=IMAGE_BYTES) as service:
            for number, uid in enumerate(uids):
                path = folder / f"{number:05d}"
                try:
                    path.write_bytes(service.retrieve_instance(entry.study_uid, entry.series_uid, uid))
                except NoAnswer as error:
                    if not error.lacks:
                        raise
                    absent = error
                else:
                    files += [path] if _is_image(path, uid) else []
        if absent and not files:
            raise absent  # as where the server sends no images under this url
    except NoAnswer as error:
        raise Busy(str(error), error.wait_s) from error
    if len(files) < len(uids):
        raise Lacking(
            f"the server sends {len(files)} of the {len(uids)} images that it lists; for the others it answers that it "
            "has none, or with another image"
        )
    return files


def _is_image(path: Path, uid: str) -> bool:
    """Whether a file is the instance that was asked for; the gate could not see that the last slice of a scan lacks."""
    try:
        return ascii_text(read_dataset(path), "SOPInstanceUID") == uid
    except UnreadableInstance:
        return False


def _listed(server: DicomwebSettings, entry: Entry) -> list[str]:
    """The SOP Instance UIDs that a server lists of a series; raises Permanent, NoAnswer."""
    from node.network.bounded_http import NoAnswer  # noqa: PLC0415
    from node.network.qido import ask, find_instances  # noqa: PLC0415

    try:
        uids = sorted(find_instances(server, entry.study_uid, entry.series_uid, Timeouts()))
    except NoAnswer as error:
        if not error.lacks:
            raise
        with suppress(NoAnswer):
            ask(server, Timeouts())  # who answers another query has the service under this url, and not the series
            raise Permanent("the server says that it has no such series") from error
        raise
    if not uids:
        raise Permanent("the server lists no image of this series")
    if not all(is_uid(uid) for uid in uids):
        raise Permanent("the server lists an image by something that is no UID")
    return uids
