"""What the bytes of an instance can hold: identity, headers, frames, a derived slice, character sets, codestreams."""

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom.dsutils import decode, encode

from config.syntax import FOREIGN_UID, UID_ALPHABET
from node.dicom import charsets, codestream
from node.dicom.elements import is_valid_value, split_values, write_part10
from node.dicom.headers import SliceHeader, read_header, read_headers
from node.dicom.identity import glimpse, inflated, part10_head, read_identity, refuse_costly_request
from node.dicom.meaning import meaning_of, person_name
from node.dicom.profiles.load import broken_rules, load_profile, profile_names
from node.dicom.profiles.read import read_values
from node.dicom.quiet import quiet_pydicom
from node.dicom.volume import read_volume
from node.errors import Permanent, UnreadableInstance
from node.network.commitment import UnreadableReferences, all_failed, read_report, read_request, request_of
from node.receive.completion import series_facts
from tests import bombs
from tests.builders import make_series, put_raw
from tests.fuzz.hostile import NAMES, UIDS
from tests.fuzz.target import KB, MB, Run, Source, Target, always
from tests.multi_frame import enhanced

_META: Final = 132
_ROWS: Final = 8
_WORDS: Final = (
    *(vr.encode() for vr in ("UI", "SQ", "UN", "OB", "OW", "PN", "LO", "DS", "IS", "CS", "US", "UT", "LT", "DA", "TM")),
    *(b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xff\xff\xff", b"\x08\x00\x16\x00UI"),
    *(
        b"\x08\x00\x05\x00CS",
        b"\x10\x00\x10\x00PN",
        b"\x20\x00\x0d\x00UI",
        b"\x20\x00\x32\x00DS",
        b"\x28\x00\x10\x00US",
    ),
    *(
        b"\xe0\x7f\x10\x00OW",
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff",
        b"\x00\x60\x00\x01US",
        b"\\",
        b"1e30",
        b"-0",
        b".",
    ),
)


# -- files to begin with ----------------------------------------------------------------------------------------------


@cache
def slice_files() -> tuple[bytes, ...]:
    """Part 10 files: a slice as a scanner writes it, in other transfer syntaxes, with hostile names; and of frames."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plain = _slice(root / "plain")
        syntaxes = [
            _in_syntax(plain, root / "a", uid) for uid in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
        ]
        named = [_named(root / str(number), *name) for number, name in enumerate(NAMES)]
        frames = enhanced(make_series(root / "s", slices=3, rows=_ROWS, columns=_ROWS), root / "frames.dcm")
        compressed = bombs.with_frame(root / "rle", bombs.rle(b"\x81\x00" * 4), RLELossless, slices=1)[0]
        return tuple(path.read_bytes() for path in (plain, *syntaxes, frames, compressed, *named))


def plain_header() -> SliceHeader:
    """The header of a plain slice."""
    with tempfile.TemporaryDirectory() as folder:
        return read_header(_slice(Path(folder)))


def _slice(folder: Path, **more: Any) -> Path:
    return make_series(folder, slices=1, rows=_ROWS, columns=_ROWS, **more)[0]


def _in_syntax(path: Path, out: Path, syntax: Any) -> Path:
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    out = out.with_suffix(f".{syntax}")
    ds.save_as(out, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    return out


def _named(folder: Path, charset: str, name: bytes) -> Path:
    def edit(ds: Dataset, _z: int) -> None:
        put_raw(ds, "SpecificCharacterSet", charset.encode("latin-1"))
        for keyword in ("PatientName", "SeriesDescription", "PatientID"):
            put_raw(ds, keyword, name)

    return _slice(folder, edit=edit)


def _data_sets() -> list[bytes]:
    """Data sets without their file meta information, each behind a byte that says how it is encoded."""
    found = []
    for data in slice_files()[:2]:
        at = _META
        while data[at : at + 2] == b"\2\0":
            is_long = data[at + 4 : at + 6] == b"OB"
            at += 12 + data[at + 8] if is_long else 8 + data[at + 6]
        found.append(data[at:])
    explicit, implicit = found
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = compressor.compress(explicit) + compressor.flush()
    head = explicit[: explicit.index(b"\xe0\x7f\x10\x00")]
    at = head.index(b"\x08\x00\x18\x00UI")
    uid = head[at : at + 8 + head[at + 6]]
    other = uid[:-2] + bytes(byte ^ 1 for byte in uid[-2:])
    doubled = [head[:at] + uid + other + head[at + len(uid) :], head + other]  # whose UID is it?
    return [b"\0" + explicit, b"\0" + head, b"\1" + implicit, b"\2" + deflated, *(b"\0" + one for one in doubled)]


@contextmanager
def _file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder) / "one.dcm"


def of_file(run: Callable[[Path], object]) -> Callable[[], Any]:
    """`open` of a target that reads a file."""

    @contextmanager
    def opened() -> Iterator[Run]:
        with _file() as path:

            def write_and_run(data: bytes) -> None:
                path.write_bytes(data)
                run(path)

            yield write_and_run

    return opened


# -- identity ---------------------------------------------------------------------------------------------------------


_SYNTAXES: Final = {b"\1": ImplicitVRLittleEndian, b"\2": DeflatedExplicitVRLittleEndian}


@contextmanager
def _identified() -> Iterator[Run]:
    with _file() as path:
        yield partial(_identify, path)


def _identify(path: Path, data: bytes) -> None:
    """As the receiver takes an instance: its identity, then the file, which is read when the series is complete."""
    kind, received = data[:1], data[1:]
    implicit_vr = kind == b"\1"
    known = glimpse(received, implicit_vr=implicit_vr)
    readable = inflated(received) if kind == b"\2" else received
    found = read_identity(readable, implicit_vr=implicit_vr)
    uids = (found.sop_class_uid, found.sop_instance_uid, found.study_uid, found.series_uid)
    assert all(FOREIGN_UID.fullmatch(uid) for uid in uids), f"no UID: {uids}"
    assert all(UID_ALPHABET.fullmatch(uid) for uid in uids[:2]), f"no UID: {uids}"
    assert kind == b"\2" or known == found, f"a glimpse tells something else: {known} {found}"
    syntax = _SYNTAXES.get(kind, ExplicitVRLittleEndian)
    path.write_bytes(part10_head(found.sop_class_uid, found.sop_instance_uid, syntax) + received)
    header = read_header(path, decode=False)
    again = (header.sop_class_uid, header.sop_instance_uid, header.study_uid, header.series_uid)
    assert again == uids, f"the file says something else than the instance: {again} {uids}"


# -- headers ----------------------------------------------------------------------------------------------------------

_SAME: Final = {
    "SOPClassUID": "sop_class_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "StudyInstanceUID": "study_uid",
    "SeriesInstanceUID": "series_uid",
    "Modality": "modality",
}


def _read_file(path: Path) -> None:
    headers = read_headers(path, decode=False)
    for header in headers:
        _check_header(header)
    series_facts(headers)
    if headers[0].frame is None:
        _compare(path, headers[0])
    for name in profile_names():
        profile = load_profile(name)
        broken_rules(profile, [read_values(path, profile.keywords)])


def _check_header(header: SliceHeader) -> None:
    uids = (header.sop_class_uid, header.sop_instance_uid, header.study_uid, header.series_uid)
    assert all(FOREIGN_UID.fullmatch(uid) for uid in uids), f"no UID: {uids}"
    assert "PatientName" not in repr(header), "the patient is printed: "
    assert len(header.content_sha256) == 64, "no digest: "


def _compare(path: Path, header: SliceHeader) -> None:
    """pydicom alone, whose reading is independent of the walk, finds the same values."""
    with quiet_pydicom():
        ds = dcmread(path)
        for keyword, name in _SAME.items():
            try:
                value = ds.get(keyword)
            except Exception:  # it cannot convert what is kept as bytes here
                continue
            text = "" if value is None else str(value) if not isinstance(value, list) else "\\".join(map(str, value))
            if text.isascii() and text.isprintable() and "[" not in text:
                assert text.strip() == getattr(header, name), f"{keyword} differs: {text!r} {getattr(header, name)!r}"


# -- a derived slice --------------------------------------------------------------------------------------------------


def _derive(path: Path) -> None:
    """Whatever the source says, the slice made of it is a valid file of the same patient."""
    from node.dicom.derived import build_slice
    from tests.unit.node.dicom.test_derived import PLAN

    volume = read_volume([path])
    source = volume.slices[0]
    built = build_slice(PLAN, source, volume.stored[0])
    out = path.with_name("derived.dcm")
    write_part10(built, out)
    made = read_header(out)
    assert made.synthetic_data == "YES", "it is not marked: "
    assert made.contrast_agent == "", "it names a contrast agent: "
    assert made.patient == source.header.patient, "another patient: "
    assert made.image_position_mm == source.header.image_position_mm, "another position: "
    assert made.image_orientation == source.header.image_orientation, "another orientation: "
    assert made.frame_of_reference_uid == source.header.frame_of_reference_uid, "another frame of reference: "


# -- text and codestreams ---------------------------------------------------------------------------------------------

_TEXT_VRS: Final = (
    "LO",
    "LT",
    "PN",
    "SH",
    "ST",
    "UC",
    "UT",
    "CS",
    "DA",
    "TM",
    "DT",
    "DS",
    "IS",
    "UI",
    "AE",
    "AS",
    "US",
)


def _decode_text(data: bytes) -> None:
    """Character set, NUL, the text."""
    head, _, raw = data.partition(b"\0")
    charset = tuple(part.strip() for part in head.decode("latin-1").split("\\")) if head else ()
    meant = charsets.character_set(charset)
    text = charsets.decode_text(raw, charset)
    exact = charsets.decode_exactly(raw, charset)
    assert exact is None or exact == text, f"two texts: {exact!r} {text!r}"
    assert exact is not None or not charsets.is_plain(raw), "ASCII cannot be read: "
    for limit in (0, 1, 16, 64):
        cut = charsets.cut_text(raw, limit, charset)
        assert cut is None or (raw.startswith(cut) and len(charsets.decode_text(cut, charset)) <= limit), (
            "cut wrongly: "
        )
    written = charsets.writable(text, charsets.own_encoding(charset))
    assert written.isprintable(), f"not one printable line: {written!r}"
    written.encode(charsets.own_encoding(charset))
    name = person_name(text)
    assert person_name(name) == name, f"a tidy name gets another one: {name!r}"
    for vr in _TEXT_VRS:
        meaning_of(raw, vr, charset)
        split_values(raw, vr, charset)
        is_valid_value(raw, vr, charset)
    meant.leaves_open(raw)


def _declare(data: bytes) -> None:
    head = codestream.codestream_head(data)
    rows, columns = (head.rows, head.columns) if head is not None else (8, 8)
    for text in (
        codestream.why_not_as_declared(data, rows, columns, 16),
        codestream.why_not_rle(data, 8, 8, 2),
        codestream.why_lossy(data),
    ):
        assert text.isprintable(), f"not one printable line: {text!r}"


def _codestreams() -> list[bytes]:
    lossy = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    return [bombs.jpeg_2000(1, 8, 8), bombs.jpeg_ls(1, 8, 8), bombs.rle(b"\x81\x00" * 4), lossy]


# -- references -------------------------------------------------------------------------------------------------------


def _refer(data: bytes) -> None:
    """A request and a report for storage commitment, as the receiver decodes them."""
    source = Source(data[:1])
    implicit_vr = source.flag()
    with suppress(UnreadableInstance), quiet_pydicom():
        refuse_costly_request(data[1:], implicit_vr=implicit_vr)
        found = data_set(data[1:], implicit_vr=implicit_vr)
        if found is None:
            return
        with suppress(UnreadableReferences):
            transaction, references = read_request(found)
            assert UID_ALPHABET.fullmatch(transaction), f"no UID: {transaction!r}"
            assert all(UID_ALPHABET.fullmatch(one.sop_instance_uid) for one in references), "no UID: "
            encode(all_failed(transaction, references, 0x0110), False, True)
        report = read_report(found)
        assert not report.committed & report.failed.keys(), "committed and failed: "
        assert all(UID_ALPHABET.fullmatch(uid) for uid in (*report.committed, *report.failed)), "no UID: "


def data_set(data: bytes, *, implicit_vr: bool) -> Dataset | None:
    """None where the bytes are none for pydicom, for which the receiver has an answer of its own."""
    from io import BytesIO

    try:
        return decode(BytesIO(data), implicit_vr, True)
    except Exception:
        return None


def _references() -> list[bytes]:
    requests = [
        request_of(uid or "1", "1.2", ["1.2.3", "1.2.4"]) for uid in UIDS[:6] if UID_ALPHABET.fullmatch(uid or "1")
    ]
    failed = all_failed("1.2.9", read_request(requests[0])[1], 0x0110)
    failed.ReferencedSOPSequence = requests[0].ReferencedSOPSequence
    kinds = ((b"\0", False), (b"\1", True))
    return [head + (encode(ds, implicit, True) or b"") for ds in (*requests, failed) for head, implicit in kinds]


DICOM: Final = (
    Target("identity", _identified, _data_sets, (UnreadableInstance,), _WORDS, max_bytes=256 * KB, share=2),
    Target(
        "header",
        of_file(_read_file),
        lambda: list(slice_files()),
        (UnreadableInstance,),
        _WORDS,
        memory_bytes=32 * MB,
        examples=50,
        share=2,
    ),
    Target(
        "derived",
        of_file(_derive),
        lambda: list(slice_files()),
        (Permanent,),
        _WORDS,
        memory_bytes=32 * MB,
        examples=40,
    ),
    Target(
        "text",
        always(_decode_text),
        lambda: [charset.encode("latin-1") + b"\0" + name for charset, name in NAMES],
        tokens=tuple(term.encode() for term in (*charsets.ENCODINGS, *charsets.SPELLINGS) if term),
        max_bytes=16 * KB,
    ),
    Target("codestream", always(_declare), _codestreams, max_bytes=16 * KB),
    Target(
        "commitment",
        always(_refer),
        _references,
        (UnreadableReferences,),
        _WORDS,
        max_bytes=MB,
        memory_bytes=64 * MB,
    ),
)
