"""A rejection note about a derived series (IHE RAD-TF, Imaging Object Change Management): a Key Object Selection.

The title says why the objects that it names do not count any more (PS3.16 CID 7011). Importing this module imports
highdicom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.coding import Code

from config.syntax import Companion
from node.dicom.companions.kinds import companion_path
from node.dicom.companions.series import DerivedSeries, Frame
from node.dicom.constants import CT_IMAGE_STORAGE, PRODUCT_NAME
from node.dicom.derived_plan import local_time
from node.dicom.elements import ascii_text, is_valid_value, keep, put, raw_element, tag_of, vr_of
from node.dicom.quiet import quiet_pydicom
from node.dicom.uids import UidFactory
from node.version import software_version

TITLES: Final = {
    "113037": Code("113037", "DCM", "Rejected for Patient Safety Reasons"),
    "113001": Code("113001", "DCM", "Rejected for Quality Reasons"),
}
_WORDS: Final = {
    "113037": "Recalled by the node that made these synthetic images: do not use them.",
    "113001": "Withdrawn or replaced by the node that made these synthetic images.",
}
_NUMBER: Final = 9  # of the series, behind those of the companions
_UTF8: Final = ("ISO_IR 192",)


@dataclass(frozen=True)
class Withdrawn:
    """A derived series of which images lie at a destination and shall not; `folder` is None without its files.

    sop_instance_uids: what is rejected. companions: kinds that the destination asks for; those that lie on the disk are
    rejected with the images. patient: identity by DICOM keyword; it and the texts count only where there are no files.
    """

    study_uid: str
    series_uid: str
    sop_instance_uids: Sequence[str]
    folder: Path | None
    companions: Sequence[Companion] = ()
    series_number: int | None = None
    description: str = ""
    patient: Mapping[str, str] = field(default_factory=dict, repr=False)
    device_serial_number: str = ""


def build_note(withdrawn: Withdrawn, uids: UidFactory, code: str, decided_at: datetime, zone: tzinfo | None) -> Dataset:
    """The note, of which the same arguments and files give the same bytes; its SOPInstanceUID follows from these.

    code: a key of TITLES. decided_at: an aware datetime, which the note carries in `zone` (None is the machine's) where
    the series names no offset. Raises ValueError where nothing is rejected.
    """
    series, rejected = _read(withdrawn)
    offset = ascii_text(series.slices[0], "TimezoneOffsetFromUTC").strip()
    frame = Frame(
        series,
        uids,
        uids.make("rejection note series", withdrawn.series_uid, code, decided_at.isoformat()),
        "rejection note",
        _NUMBER,
        local_time(decided_at, offset, zone),
    )
    content = KeyObjectSelection(TITLES[code], rejected, description=_WORDS[code])
    with quiet_pydicom():  # a UID of somebody else may break its rules, and the images have it too
        return frame.finished(KeyObjectSelectionDocument(evidence=rejected, content=content, **frame.arguments))


def _read(withdrawn: Withdrawn) -> tuple[DerivedSeries, list[Dataset]]:
    """The series whose identity the note takes, from a file of it if one can be read, and what the note names."""
    images = [_image(withdrawn, uid) for uid in withdrawn.sop_instance_uids]
    if withdrawn.folder is None:
        return DerivedSeries((_stored_head(withdrawn),)), images
    paths = [companion_path(withdrawn.folder, kind) for kind in withdrawn.companions]
    beside = DerivedSeries(tuple(filter(None, map(_header, paths)))).evidence
    slices = filter(None, map(_header, sorted(withdrawn.folder.glob("*.dcm"))))
    return DerivedSeries((next(slices, None) or _stored_head(withdrawn),)), [*images, *beside]


def _header(path: Path) -> Dataset | None:
    """A file without its pixels; None where it is gone or damaged."""
    try:
        with quiet_pydicom():
            return dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError, EOFError, ValueError):
        return None


def _stored_head(withdrawn: Withdrawn) -> Dataset:
    """What the store knows of a series whose files were removed, as the header of a slice of it; text in UTF-8."""
    head = Dataset()
    put(head, "SpecificCharacterSet", *_UTF8)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID"):
        tag = tag_of(keyword)
        raw, vr = withdrawn.patient.get(keyword, "").encode(), vr_of(tag)
        if raw and is_valid_value(raw, vr, _UTF8):
            head[tag] = raw_element(tag, vr, raw)
        elif keyword != "IssuerOfPatientID":  # the others are of type 2
            head[tag] = raw_element(tag, vr, b"")
    keep(head, "StudyInstanceUID", withdrawn.study_uid)
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID"):
        tag = tag_of(keyword)
        head[tag] = raw_element(tag, vr_of(tag), b"")
    put(head, "SeriesInstanceUID", withdrawn.series_uid)
    put(head, "SeriesNumber", str(withdrawn.series_number or 0))
    ascii_description = withdrawn.description.encode("ascii", "replace").decode().replace("\\", "?")
    put(head, "SeriesDescription", ascii_description[:64].strip())
    put(head, "Manufacturer", PRODUCT_NAME)
    put(head, "ManufacturerModelName", PRODUCT_NAME)
    put(head, "DeviceSerialNumber", withdrawn.device_serial_number)
    put(head, "SoftwareVersions", software_version())
    return head


def _image(withdrawn: Withdrawn, sop_instance_uid: str) -> Dataset:
    """A slice as a builder needs it to name it."""
    image = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(image, keyword, "")
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"):
        setattr(image, keyword, "")
    image.SOPClassUID, image.SOPInstanceUID = CT_IMAGE_STORAGE, sop_instance_uid
    image.SeriesInstanceUID = withdrawn.series_uid
    keep(image, "StudyInstanceUID", withdrawn.study_uid)
    image.Rows = image.Columns = 1  # it is an image; the note holds no size
    return image
