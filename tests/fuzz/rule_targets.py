"""What headers can claim and rules must answer: geometry, the input gate, a site's own rules, and queries."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode, encode

from node.dicom.attribute_rules import MAX_MATCHED_CHARS, OPERATIONS, Rule
from node.dicom.geometry import DUPLICATE_TOLERANCE_MM, SHEAR_TOLERANCE_MM, Flaw, SlicePlane, Stack, describe_stack
from node.dicom.headers import PatientIdentity, SliceHeader
from node.dicom.identity import refuse_costly_request
from node.dicom.quiet import quiet_pydicom
from node.dicom.uids import UidFactory
from node.errors import UnreadableInstance
from node.query.find import answers
from node.query.keys import KEYS, LEVELS
from node.query.matching import BadKey, matcher
from node.receive.eligibility import Accept, EligibilityPolicy, Incomplete, Skip, judge
from tests.fuzz.dicom_targets import plain_header
from tests.fuzz.hostile import AE_TITLES, IDS, NAMES, TEXTS, UIDS
from tests.fuzz.target import KB, MB, Source, Target, always

# -- geometry ---------------------------------------------------------------------------------------------------------

_NUMBERS: Final = (
    *(
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.5,
        3.0,
        1e-9,
        1e-4,
        1e-3,
        0.01,
        0.15,
        0.1,
        100.0,
        1e4,
        1e8,
        1e15,
        1e29,
        -1e29,
        9.99e29,
    ),
    *(0.70710678, -0.70710678, 0.999999, 1.000001, 5e-324),
)
_AXIAL: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def _number(source: Source) -> float:
    kind = source.integer(3)
    if kind == 0:
        return source.pick(_NUMBERS)
    if kind == 1:
        return (source.integer(0xFFFF) - 0x8000) / 10
    return source.pick(_NUMBERS) + (source.integer(0xFF) - 0x80) / 1000


def _planes(source: Source) -> list[SlicePlane]:
    """A lattice, of which some slices are moved, turned, left out or said twice."""
    step, count = source.pick((3.0, 2.5, 1.0, 0.5, 0.02, 5.0, 1e4, 1e-3)), 1 + source.integer(31)
    planes = [SlicePlane((-10.0, -10.0, z * step), _AXIAL, (1.0, 1.0), 8, 8) for z in range(count)]
    for _ in range(source.integer(5)):
        index, kind = source.integer(len(planes) - 1), source.pick((0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 6))
        plane = planes[index]
        if kind <= 1:
            x, y, z = plane.position_mm
            change = _number(source)
            planes[index] = replace(plane, position_mm=(x, y + change, z) if kind else (x, y, z + change))
        elif kind == 2:
            planes[index] = replace(plane, position_mm=(_number(source), _number(source), _number(source)))
        elif kind == 3:
            turned = [_number(source) for _ in range(6)]
            planes = [replace(one, orientation=tuple(turned)) for one in planes]  # type: ignore[arg-type]
        elif kind == 4:
            planes[index] = replace(plane, pixel_spacing_mm=(_number(source), _number(source)))
        elif kind == 5:
            planes.append(plane)
        elif len(planes) > 1:
            del planes[index]
    return planes


def _stack(data: bytes) -> None:
    source = Source(data)
    planes, tolerance_mm = _planes(source), source.pick((0.15, 0.01, 1.0))
    found = describe_stack(planes, tolerance_mm)
    shuffled = [planes[i] for i in np.random.default_rng(len(data)).permutation(len(planes))]
    again = describe_stack(shuffled, tolerance_mm)
    if isinstance(found, Flaw):
        assert isinstance(again, Flaw), f"another order makes a stack of it: {found.kind}"
        assert found.reason.isprintable(), f"not a sentence: {found.reason!r}"
        assert "nan" not in found.reason, f"not a sentence: {found.reason!r}"
        assert found.count >= 0, f"a number of slices below 0: {found.count}"
        return
    assert isinstance(again, Stack), "another order makes a flaw of it: "
    assert sorted(found.order) == list(range(len(planes))), "slices are lost: "
    ordered = np.array([planes[index].position_mm for index in found.order])
    reached = np.array([shuffled[index].position_mm for index in again.order])
    assert np.array_equal(ordered, reached) or np.allclose(ordered, reached, atol=DUPLICATE_TOLERANCE_MM), (
        "another order: "
    )
    _check_lattice(ordered, planes[0].orientation, found.spacing_mm, tolerance_mm)


def _check_lattice(ordered: Any, orientation: Sequence[float], spacing_mm: float, tolerance_mm: float) -> None:
    """Every position lies where an even lattice has it: within the tolerance along the normal, hardly moved across."""
    normal = np.cross(orientation[:3], orientation[3:])
    normal /= np.linalg.norm(normal)
    along = (ordered - ordered[0]) @ normal
    off = along - spacing_mm * np.arange(len(along))
    rounding = 1e-9 * float(np.abs(ordered).max(initial=1.0))
    assert float(np.abs(off).max()) <= 2 * tolerance_mm + rounding, (
        f"a slice lies off the lattice: {np.abs(off).max()} mm"
    )
    across = (ordered - ordered[0]) - np.outer(along, normal)
    assert float(np.abs(across).max()) <= SHEAR_TOLERANCE_MM + rounding, "a slice is moved sideways: "


def _noise(count: int, bytes_each: int = 400) -> list[bytes]:
    """Inputs that say anything: what is drawn from them has no format of its own."""
    chance = np.random.default_rng(17)
    return [b"", *(chance.bytes(bytes_each) for _ in range(count))]


# -- the input gate ---------------------------------------------------------------------------------------------------

_FACTS: Final = (
    *("", "CT", "MR", "ORIGINAL", "DERIVED", "PRIMARY", "AXIAL", "LOCALIZER", "HU", "US", "HFS", "FFDL", "MONOCHROME2"),
    *(
        "YES",
        "NO",
        "NONE",
        "120",
        "80",
        "3500",
        "0",
        "1",
        "-1",
        "1e29",
        "1.5",
        "50",
        "0.0",
        "OMNIPAQUE",
        "C-",
        "C+",
        "KM",
    ),
    *("75 %", "T=50%", "MAR", "iMAR", "VNC", "MIP", "SPIRAL_RESP", "RESP", "BREATH_HOLD", "i.v.", "ORAL", "20261127"),
)
_WORDS: Final = (
    *_FACTS,
    *_FACTS,
    *(text for text in TEXTS if len(text) <= 5000),
    *(n.decode("latin-1") for _, n in NAMES),
)
_SECRET: Final = "DOE^SECRET"
_TEXT_FIELDS: Final = (
    *("modality", "synthetic_data", "contrast_agent", "multienergy", "photometric_interpretation", "rescale_type"),
    *("patient_position", "convolution_kernel", "manufacturer", "manufacturer_model_name", "transfer_syntax_uid"),
)
_UID_FIELDS: Final = ("sop_class_uid", "sop_instance_uid", "study_uid", "series_uid", "frame_of_reference_uid")
_WHOLE_FIELDS: Final = (
    *("rows", "columns", "samples_per_pixel", "bits_allocated", "bits_stored", "high_bit", "pixel_representation"),
    *("number_of_frames", "series_number", "frame"),
)
_NUMBER_FIELDS: Final = ("rescale_slope", "rescale_intercept", "slice_thickness_mm", "spacing_between_slices_mm")
_WHOLE: Final = (None, 0, 1, 2, 8, 11, 12, 15, 16, 32, 512, 65535, -1, 2**31, 10**29)


@cache
def _headers() -> tuple[SliceHeader, ...]:
    """Headers of a plain scan of ten slices."""
    first = plain_header()
    return tuple(
        replace(
            first,
            path=Path(f"{z}.dcm"),
            sop_instance_uid=UidFactory().make("fuzz", str(z)),
            image_position_mm=(0.0, 0.0, 3.0 * z),
            content_sha256=f"{z:064}",
        )
        for z in range(10)
    )


def _text(source: Source) -> str:
    return source.text(_WORDS)


def _changed(header: SliceHeader, source: Source) -> SliceHeader:
    kind = source.integer(7)
    change: dict[str, Any]
    if kind == 0:
        change = {source.pick(_TEXT_FIELDS): _text(source)}
    elif kind == 1:
        change = {"captured": {**header.captured, source.pick(tuple(header.captured)): _values(source)}}
    elif kind == 2:
        change = {source.pick(_UID_FIELDS): source.pick(UIDS)[:128]}
    elif kind == 3:
        change = {source.pick(_WHOLE_FIELDS): source.pick(_WHOLE)}
    elif kind == 4:
        change = {source.pick(_NUMBER_FIELDS): source.pick((None, *_NUMBERS))}
    elif kind == 5:
        change = {"image_type": _values(source)}
    elif kind == 6:
        identity = (source.pick(IDS), source.pick(("", "X")), source.pick((_SECRET, _SECRET + "^A")), "", "O")
        change = {"patient": PatientIdentity(*identity), "series_description": _text(source)}
    else:
        place: Any = source.pick((None, tuple(_number(source) for _ in range(3))))
        change = {"image_position_mm": place, "image_orientation": source.pick((None, _AXIAL, (0.0,) * 6))}
    return replace(header, **change)


def _values(source: Source) -> tuple[str, ...]:
    return tuple(_text(source) for _ in range(source.integer(4)))


def _judge(data: bytes) -> None:
    source = Source(data)
    headers = list(_headers()[: source.integer(10)])
    for _ in range(source.integer(12) if headers else 0):
        if source.flag():
            changes = source.take(20)
            headers = [_changed(header, Source(changes)) for header in headers]
        else:
            index = source.integer(len(headers) - 1)
            headers[index] = _changed(headers[index], source)
    policy = EligibilityPolicy(
        metal_artifact_reduction=source.pick(("hold", "process")),
        takes_contrast=source.flag(),
        takes_virtual=source.flag(),
        rules=(Rule("PatientID", "not_one_of", ("",), "no ID"),) if source.flag() else (),
    )
    headers = [replace(one, captured={**one.captured, "PatientID": (one.patient_id,)}) for one in headers]
    verdict = judge(headers, policy)
    assert isinstance(verdict, Accept | Skip | Incomplete), "no verdict: "
    reason = verdict.doubt if isinstance(verdict, Accept) else verdict.reason
    assert reason.isprintable(), f"not one printable line: {reason!r}"
    assert _SECRET not in reason, "the reason names the patient: "
    assert len(reason) < 5000, f"a reason of {len(reason)} characters: "
    again = judge(headers[::-1], policy)
    assert type(again) is type(verdict), f"another order, another verdict: {verdict} {again}"
    if isinstance(verdict, Skip) and isinstance(again, Skip):
        assert again.code == verdict.code, f"another order, another rule: {verdict} {again}"


# -- a site's own rules -----------------------------------------------------------------------------------------------

_PATTERNS: Final = (
    *(
        "(a+)+",
        "(a|a)*",
        "(a|ab)*c",
        "(.*)*",
        "(x+x+)+y",
        "([a-z]+)*[A-Z]",
        ".*.*.*.*.*.*.*.*x",
        "(a?){30}a{30}",
        "a{1,60}{1,60}",
    ),
    *(
        r"(\w+\s?)*!",
        r"^(\d+)+$",
        "[A-Z]{2,4}[0-9]*",
        "CHEST|THORAX",
        "(?i)chest",
        r"\bCT\b",
        "((((((((((a*)*)*)*)*)*)*)*)*)*)*b",
    ),
    *(
        "a**",
        "(?P<x>a)(?P=x)",
        "(?=a)*",
        "(?<=a)b",
        "(?:a|b|)*?c",
        "[^\\n]",
        "\\Z",
        "(?s:.)",
        "(?>a*)a",
        "a*+b",
        "(a)(?(1)b|c)",
    ),
    *(
        "",
        "(",
        "[",
        "\\",
        "*",
        "a{99999999999}",
        "(?:" * 60,
        "(?i:" + "a*" * 90 + ")",
        "[[:alpha:]]",
        "\\N{DIGIT ONE}",
        "(?#",
    ),
)
_FOUND: Final = ("a" * 63 + "!", "a" * 64, "x" * 60, "CHEST", "1" * 63 + "x", "ab" * 32, "a b " * 16, "", *_WORDS)
_KEYWORDS: Final = (
    "PatientID",
    "BodyPartExamined",
    "KVP",
    "Rows",
    "PixelData",
    "PatientName",
    "",
    "x",
    "ReferencedImageSequence",
)


def _site_rule(data: bytes) -> None:
    source = Source(data)
    operation = source.pick((*OPERATIONS, *["matches"] * 16, "eval"))
    count = OPERATIONS[operation][0] if operation in OPERATIONS and source.integer(7) else source.integer(3)
    values = tuple(source.text(_PATTERNS if operation == "matches" else _WORDS) for _ in range(count))
    rule = Rule(source.pick((*["PatientID"] * 20, *_KEYWORDS)), operation, values, source.pick((*["why"] * 8, "")))
    for _ in range(4):
        found = tuple(source.text(_FOUND) for _ in range(source.integer(2)))
        holds = rule.holds(found)
        assert isinstance(holds, bool), "neither yes nor no: "
        if operation == "matches" and holds:
            assert len("\\".join(found)) <= MAX_MATCHED_CHARS, "a long text matches: "


# -- queries ----------------------------------------------------------------------------------------------------------


def _query(level: str = "STUDY", **keys: Any) -> bytes:
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    with quiet_pydicom():
        for keyword, value in keys.items():
            setattr(asked, keyword, value)
    return b"\1" + (encode(asked, False, True) or b"")


def _queries() -> list[bytes]:
    texts = [_query("PATIENT", PatientName=text[:400], PatientID="*") for text in IDS if text.isascii()]
    uids = [_query("STUDY", StudyInstanceUID=uid[:64], PatientID="1*") for uid in UIDS if uid.isascii()]
    levels = [_query(level, **dict.fromkeys(KEYS[level], "")) for level in LEVELS]
    dates = ("20260101-", "-20261231", "20260101-20261231", "2026.01.01", "10-12", "235959.999999-", "-")
    return [*levels, *texts, *uids, *(_query("STUDY", StudyDate=one, StudyTime=one) for one in dates)]


@cache
def _candidates() -> tuple[Dataset, ...]:
    made = []
    for number, (charset, name) in enumerate(NAMES):
        one: Any = Dataset()
        with quiet_pydicom():
            one.SpecificCharacterSet = charset.split("\\")
            one.PatientName, one.PatientID = name.decode("latin-1"), IDS[number % len(IDS)][:64]
            one.StudyInstanceUID = one.SeriesInstanceUID = f"1.2.{number}"
            one.SOPInstanceUID = f"1.2.3.{number}"
            one.StudyDate, one.StudyTime = ("20260131", "1200") if number % 3 else ("", "12")
            one.SeriesNumber, one.Rows = number if number % 5 else None, 512
            one.SeriesDescription = AE_TITLES[number % len(AE_TITLES)][:64]
        made.append(one)
    return tuple(made)


class _Index:
    """Every candidate, whatever is asked."""

    def candidates(self, asked: Any, look: Any) -> Iterator[Dataset]:
        for one in _candidates():
            look()
            yield one


def _find(data: bytes) -> None:
    with suppress(UnreadableInstance), quiet_pydicom():
        refuse_costly_request(data[1:], implicit_vr=False)
        try:
            identifier = decode(BytesIO(data[1:]), False, True)
        except Exception:  # the service answers that it is no data set
            return
        index: Any = _Index()
        given = list(answers(index, identifier, lambda: None, patient_root=data[:1] == b"\1", ae_title="SYNCECT"))
        final = given[-1][0]
        code = final if isinstance(final, int) else final.Status
        assert code in (0x0000, 0xA700, 0xA900, 0xC000), f"an odd status: {code:04X}"
        for status, answer in given[:-1]:
            assert status == 0xFF00, "an answer before the last is not pending: "
            assert "QueryRetrieveLevel" in (answer or ()), "an answer without its level: "


# -- one key against a slow reference ---------------------------------------------------------------------------------


def _fits(pattern: str, text: str, *, same: Any) -> bool:
    """Wild card matching by its definition (PS3.4 C.2.2.2.4), a table of all beginnings of both."""
    row = [True, *(False for _ in text)]
    for sign in pattern:
        first = row[0] and sign == "*"
        new = [first]
        for at, character in enumerate(text, 1):
            fits = new[at - 1] or row[at] if sign == "*" else row[at - 1] and (sign == "?" or same(sign, character))
            new.append(fits)
        row = new
    return row[-1]


def _match(data: bytes) -> None:
    from pydicom.config import IGNORE
    from pydicom.dataelem import DataElement

    source = Source(data)
    vr, tag = source.pick(
        (
            ("LO", 0x00100020),
            ("PN", 0x00100010),
            ("UI", 0x0020000D),
            ("DA", 0x00080020),
            ("TM", 0x00080030),
            ("IS", 0x00200011),
        )
    )
    words = (*IDS, "*", "a*b", "?", "DOE*", "*^*", "20260131", "1200", "1.2.3", "[a]*", "1")
    wanted, text = source.text(words)[:2000], source.text((*words, "DOE^JANE", "doe"))[:500].strip(" \0")
    if "\\" in wanted or "=" in wanted:
        wanted = wanted.replace("\\", "/").replace("=", "-")
    if vr == "PN":
        text = text.replace("=", "-")
    with quiet_pydicom():
        try:
            key = DataElement(tag, vr, wanted, validation_mode=IGNORE)
        except (ValueError, OverflowError):  # pydicom makes no number of it; `find` shows what is answered then
            return
        fits = matcher(key)([text] if text else [])
    plain = wanted.strip(" \0")
    if vr in ("LO", "PN") and plain and text and set(plain) != {"*"}:
        fold = re.IGNORECASE if vr == "PN" else 0

        def same(one: str, other: str) -> bool:
            return one == other or (bool(fold) and re.fullmatch(re.escape(one), other, fold) is not None)

        pattern, value = (plain.rstrip("^"), text.rstrip("^")) if vr == "PN" else (plain, text)
        expected = _fits(pattern, value, same=same) or (vr == "PN" and _fits(pattern, text, same=same))
        assert fits == expected or str(key.value) != wanted, f"matched otherwise: {plain!r} {text!r} {fits}"


RULES: Final = (
    Target("geometry", always(_stack), lambda: _noise(40), max_bytes=2 * KB),
    Target("gate", always(_judge), lambda: _noise(60), max_bytes=4 * KB, examples=60),
    Target("site_rule", always(_site_rule), lambda: _noise(60), (ValueError,), max_bytes=2 * KB),
    Target("find", always(_find), _queries, max_bytes=MB, memory_bytes=32 * MB, examples=40),
    Target("key", always(_match), lambda: _noise(60, 200), (BadKey,), max_bytes=4 * KB),
)
