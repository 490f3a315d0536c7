"""What the node knows of one received instance without decoding its pixels."""

import hashlib
import io
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import SequenceDelimiterTag

from config.syntax import FOREIGN_UID, UID_ALPHABET
from node.dicom.constants import UNCOMPRESSED
from node.dicom.content import GATE, content_sha256
from node.dicom.elements import charset_of, parse_decimal, values_of
from node.dicom.frames import Frame, SlicesOfFile
from node.dicom.identity import refuse_costly
from node.dicom.meaning import person_name
from node.dicom.pixels import PixelFormat, StoredPixels, decode_slice, pixel_format_of
from node.dicom.quiet import quiet_pydicom
from node.errors import AmbiguousInstance, DamagedInstance, UnreadableInstance

MAX_FILE_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """What says whose image it is; two slices of one series must agree in all of it. Never printed."""

    patient_id: str = field(repr=False)
    issuer: str = field(repr=False)
    name: str = field(repr=False)
    birth_date: str = field(repr=False)
    sex: str = field(repr=False)

    def by_keyword(self) -> dict[str, str]:
        """The values by DICOM keyword, as the store keeps them."""
        return {
            "PatientID": self.patient_id,
            "IssuerOfPatientID": self.issuer,
            "PatientName": self.name,
            "PatientBirthDate": self.birth_date,
            "PatientSex": self.sex,
        }


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """One slice as the gate, completion, grouping and listing see it: an instance, or a frame of a multi-frame one.

    Text fields are "" and numbers None where the attribute is absent, empty or no number. UIDs are as received, ""
    where they have other characters than digits and dots or more than 64 of them; those of study, series and frame of
    reference are kept up to 128, so that the gate can say what is wrong. Coded strings such as `image_type` are as
    received, stripped of padding. frame: its number in the object, from 1; None for an instance of its own.
    """

    path: Path
    content_sha256: str
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    patient: PatientIdentity = field(repr=False)
    image_type: tuple[str, ...]
    modality: str
    synthetic_data: str
    contrast_agent: str
    multienergy: str
    rows: int | None
    columns: int | None
    samples_per_pixel: int | None
    photometric_interpretation: str
    bits_allocated: int | None
    bits_stored: int | None
    high_bit: int | None
    pixel_representation: int | None
    number_of_frames: int | None
    rescale_slope: float | None
    rescale_intercept: float | None
    rescale_type: str
    image_position_mm: tuple[float, float, float] | None
    image_orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing_mm: tuple[float, float] | None
    slice_thickness_mm: float | None
    spacing_between_slices_mm: float | None
    patient_position: str
    convolution_kernel: str
    manufacturer: str
    manufacturer_model_name: str
    series_description: str = field(repr=False)
    series_number: int | None
    captured: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    frame: int | None = None

    @property
    def image_name(self) -> str:
        """Tells the image from every other one: the SOPInstanceUID, and behind it the frame where it is one."""
        return self.sop_instance_uid if self.frame is None else f"{self.sop_instance_uid}#{self.frame}"

    @property
    def patient_id(self) -> str:
        """PatientID as received; never for log lines."""
        return self.patient.patient_id

    def attribute(self, keyword: str) -> tuple[str, ...]:
        """Values of an attribute of GATE or asked for when the header was read; () where absent or empty.

        Raises KeyError for a keyword that was not asked for: an attribute that nobody read is not an absent one.
        """
        return self.captured[keyword]


def read_headers(
    path: Path, *, keywords: Iterable[str] = (), decode: bool = True, sha256: str = ""
) -> list[SliceHeader]:
    """Read the slices of one Part 10 file: one, or each frame of a multi-frame CT object, in the order of its frames.

    keywords, decode: as in `read_header`; sha256: as in `read_slices`. Raises UnreadableInstance as `read_header` does,
    and where a multi-frame object contradicts itself or is too large (`node.dicom.frames`).
    """
    with _damage_is_unreadable():
        wanted = tuple(keywords)
        slices = SlicesOfFile(load_dataset(path, sha256=sha256))  # the data set is let go: it holds the whole file
        return [_read_one(path, ds, wanted, decode=decode) for ds in slices]


def read_header(path: Path, *, keywords: Iterable[str] = (), decode: bool = True) -> SliceHeader:
    """Read one Part 10 file, of a multi-frame one its first frame.

    keywords names further attributes for `SliceHeader.attribute`. decode: False where no decoder may run, as in the
    receiver's process; compressed pixels then count by their bytes in the digest, which `decoding_apart` replaces.

    Text in an unknown or broken character set never fails, nor do pixels that cannot be decoded. Raises
    UnreadableInstance, and nothing else, where the file is no DICOM instance, is damaged, or has no class, instance,
    study or series UID.
    """
    with _damage_is_unreadable():
        return _read_one(path, SlicesOfFile(load_dataset(path))[0], tuple(keywords), decode=decode)


def _read_one(path: Path, ds: Dataset, keywords: tuple[str, ...], *, decode: bool) -> SliceHeader:
    form = pixel_format_of(ds)
    stored: StoredPixels | None = None
    if decode or form.transfer_syntax_uid in UNCOMPRESSED:
        with suppress(UnreadableInstance):
            stored = decode_slice(ds, form).sound
    return _header(path, ds, form, stored, keywords)


def read_slices(path: Path, *, sha256: str = "") -> SlicesOfFile:
    """The data sets of the slices of one Part 10 file. Raises as `read_headers`.

    sha256: hex, of the file as it was received; "" where nobody knows. Other bytes raise DamagedInstance.
    """
    with _damage_is_unreadable():
        return SlicesOfFile(load_dataset(path, sha256=sha256))


def read_dataset(path: Path) -> FileDataset:
    """Parse one Part 10 file; raises UnreadableInstance, and nothing else.

    As long as the dataset lives, the bytes of the whole file stay in memory.
    """
    with _damage_is_unreadable():
        return load_dataset(path)


def header_of(path: Path, ds: Dataset, form: PixelFormat, stored: StoredPixels | None) -> SliceHeader:
    """The header of a slice; stored: its pixels, None where nobody can decode them. Raises as `read_header`."""
    with _damage_is_unreadable():
        return _header(path, ds, form, stored, ())


@contextmanager
def _damage_is_unreadable() -> Iterator[None]:
    try:
        yield
    except UnreadableInstance:
        raise
    except FileNotFoundError:
        raise DamagedInstance("a file of the series does not exist any more; send the series again") from None
    except OSError as error:
        raise DamagedInstance(f"a file of the series cannot be read ({error.strerror})") from error
    except Exception as error:  # whatever pydicom stumbles over in a damaged file, the answer is the same
        raise UnreadableInstance(f"the file is damaged or no DICOM instance ({type(error).__name__})") from error


def load_dataset(path: Path, *, sha256: str = "") -> FileDataset:
    """Parse a Part 10 file with its values left as bytes.

    Raises UnreadableInstance for a file that is too large or would cost more to parse than an image does, see
    `identity.refuse_costly`, DamagedInstance for one with another digest than `sha256`, and passes on whatever pydicom
    or the file system raises.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise DamagedInstance("in the place of a file of the series lies something else")
    if status.st_size > MAX_FILE_BYTES:
        raise UnreadableInstance(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    data = path.read_bytes()
    # What is hashed is what is used: nothing can change the file in between.
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedInstance("a file of the series has other bytes than were received")
    if data[128:132] != b"DICM":
        raise UnreadableInstance("the file has no DICM prefix: it is no DICOM Part 10 file")
    begins = refuse_costly(data)
    with quiet_pydicom():
        ds = dcmread(io.BytesIO(data))
    if begins:
        _refuse_other_reading(ds, begins)
    return ds


def _refuse_other_reading(ds: Dataset, begins: Mapping[int, int]) -> None:
    """Raise AmbiguousInstance where pydicom found another element than the walk, or found one at another place."""
    read = {
        int(tag): element.file_tell if isinstance(element, DataElement) else element.value_tell
        for tag, element in ds.items()  # nothing is decoded
        if tag != SequenceDelimiterTag  # one too many, which some writers leave behind their pixel data, means nothing
    }
    if differing := sorted({tag for tag, _ in begins.items() ^ read.items()}):
        named = f"({differing[0] >> 16:04X},{differing[0] & 0xFFFF:04X})"
        raise AmbiguousInstance(f"two readers find other elements in the data set, of which {named} is the first")


class _Reader:
    """Typed views on the bytes of a dataset."""

    def __init__(self, ds: Dataset) -> None:
        self._ds = ds
        self._charset = charset_of(ds)

    def values(self, keyword: str) -> tuple[str, ...]:
        return values_of(self._ds, keyword, self._charset)

    def text(self, keyword: str) -> str:
        return "\\".join(self.values(keyword))

    def uid(self, keyword: str) -> str:
        text = self.text(keyword)
        rule = UID_ALPHABET if keyword.startswith("SOP") else FOREIGN_UID
        return text if rule.fullmatch(text) else ""

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        numbers = [parse_decimal(value) for value in self.values(keyword)]
        return tuple(n for n in numbers if n is not None) if len(numbers) == count and None not in numbers else None

    def number(self, keyword: str) -> float | None:
        numbers = self.numbers(keyword, 1)
        return numbers[0] if numbers else None

    def integer(self, keyword: str) -> int | None:
        number = self.number(keyword)
        return int(number) if number is not None and number == int(number) else None


def _header(  # one line per field
    path: Path, ds: Dataset, form: PixelFormat, stored: StoredPixels | None, keywords: tuple[str, ...]
) -> SliceHeader:
    read = _Reader(ds)
    uids = {key: read.uid(key) for key in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")}
    if missing := [keyword for keyword, uid in uids.items() if not uid]:
        raise UnreadableInstance(f"the instance has no valid {' and no valid '.join(missing)}")
    position = read.numbers("ImagePositionPatient", 3)
    orientation = read.numbers("ImageOrientationPatient", 6)
    spacing = read.numbers("PixelSpacing", 2)
    return SliceHeader(
        path=path,
        content_sha256=content_sha256(ds, form, stored),
        transfer_syntax_uid=form.transfer_syntax_uid,
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        frame_of_reference_uid=read.uid("FrameOfReferenceUID"),
        patient=_patient(read),
        image_type=read.values("ImageType"),
        modality=read.text("Modality"),
        synthetic_data=read.text("SyntheticData"),
        contrast_agent=read.text("ContrastBolusAgent") or read.text("ContrastBolusAgentSequence"),
        multienergy=read.text("MultienergyCTAcquisition"),
        rows=form.rows,
        columns=form.columns,
        samples_per_pixel=read.integer("SamplesPerPixel"),
        photometric_interpretation=read.text("PhotometricInterpretation"),
        bits_allocated=form.bits_allocated,
        bits_stored=form.bits_stored,
        high_bit=form.high_bit,
        pixel_representation=form.pixel_representation,
        number_of_frames=form.number_of_frames,
        rescale_slope=read.number("RescaleSlope"),
        rescale_intercept=read.number("RescaleIntercept"),
        rescale_type=read.text("RescaleType"),
        image_position_mm=(position[0], position[1], position[2]) if position else None,
        image_orientation=_six(orientation),
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        slice_thickness_mm=read.number("SliceThickness"),
        spacing_between_slices_mm=read.number("SpacingBetweenSlices"),
        patient_position=read.text("PatientPosition"),
        convolution_kernel=read.text("ConvolutionKernel"),
        manufacturer=read.text("Manufacturer"),
        manufacturer_model_name=read.text("ManufacturerModelName"),
        series_description=read.text("SeriesDescription"),
        series_number=read.integer("SeriesNumber"),
        captured={keyword: read.values(keyword) for keyword in (*GATE, *keywords)},
        frame=ds.number if isinstance(ds, Frame) else None,
    )


def _patient(read: _Reader) -> PatientIdentity:
    return PatientIdentity(
        patient_id=read.text("PatientID"),
        issuer=read.text("IssuerOfPatientID"),
        name=person_name(read.text("PatientName")),
        birth_date=read.text("PatientBirthDate"),
        sex=read.text("PatientSex"),
    )


def _six(values: tuple[float, ...] | None) -> tuple[float, float, float, float, float, float] | None:
    return (values[0], values[1], values[2], values[3], values[4], values[5]) if values else None
