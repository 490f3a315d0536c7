"""Reading four UIDs out of bytes that anybody may have sent."""

import re
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.dicom import identity as header
from node.dicom.identity import MAX_DEPTH, MAX_ELEMENTS, InstanceIdentity, glimpse, inflated, read_identity
from node.errors import UnreadableInstance


def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"SQ", b"UN", b"OB"):
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def open_ended(tag: int, vr: bytes, content: bytes) -> bytes:
    """A sequence of undefined length with one item of undefined length."""
    head = struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, 0xFFFFFFFF)
    return head + implicit(0xFFFEE000, content, 0xFFFFFFFF) + implicit(0xFFFEE00D, b"") + implicit(0xFFFEE0DD, b"")


UIDS = (
    explicit(0x00080016, b"UI", b"1.2.840\0"),
    explicit(0x00080018, b"UI", b"1.3 "),
    explicit(0x0020000D, b"UI", b"1.4\0"),
    explicit(0x0020000E, b"UI", b"1.55"),
)
IDENTITY = InstanceIdentity(sop_class_uid="1.2.840", sop_instance_uid="1.3", study_uid="1.4", series_uid="1.55")


def read(data: bytes, *, implicit_vr: bool = False) -> InstanceIdentity:
    return read_identity(data, implicit_vr=implicit_vr)


@pytest.mark.parametrize("item", [implicit(0xFFFEE000, b""), implicit(0xFFFEE000, b"", 0xFFFFFFFF)])
def test_a_data_set_of_item_headers_is_not_read_to_its_end(item: bytes) -> None:
    """200 MB of them took 22 s of the processor, in which no other association was answered."""
    data = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item * (2 * MAX_ELEMENTS)
    with pytest.raises(UnreadableInstance, match=f"more than {MAX_ELEMENTS} elements|more than {MAX_DEPTH} sequences"):
        read_identity(data, implicit_vr=False)


def test_explicit_vr() -> None:
    assert read(b"".join(UIDS)) == IDENTITY


def test_implicit_vr() -> None:
    values = (b"1.2.840\0", b"1.3", b"1.4\0", b"1.55")
    tags = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)
    data = b"".join(implicit(tag, value) for tag, value in zip(tags, values, strict=True))
    assert read(data, implicit_vr=True) == IDENTITY


def test_what_lies_between_is_skipped_however_it_nests() -> None:
    inner = open_ended(0x00081199, b"SQ", explicit(0x00081155, b"UI", b"9.9\0"))
    private = open_ended(0x00091010, b"UN", implicit(0x00091011, b"ab"))
    between = [explicit(0x00080060, b"CS", b"CT"), open_ended(0x00081115, b"SQ", inner), private]
    assert read(b"".join([*UIDS[:2], *between, *UIDS[2:]])) == IDENTITY


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 20_000])
def test_deep_nesting_is_refused_and_costs_no_recursion(depth: int) -> None:
    head = struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF) + implicit(0xFFFEE000, b"", 0xFFFFFFFF)
    tail = implicit(0xFFFEE00D, b"") + implicit(0xFFFEE0DD, b"")
    with pytest.raises(UnreadableInstance, match="nests more than 32 sequences"):
        read(b"".join([*UIDS[:2], head * depth, tail * depth, *UIDS[2:]]))
    depth = MAX_DEPTH
    assert read(b"".join([*UIDS[:2], head * depth, tail * depth, *UIDS[2:]])) == IDENTITY


def test_nothing_behind_the_series_uid_is_looked_at() -> None:
    assert read(b"".join(UIDS) + b"\x20\x00\x13\x00\xff\xff\xff\xff garbage") == IDENTITY


@pytest.mark.parametrize(
    "data",
    [
        b"",
        UIDS[0],
        b"".join(UIDS[:3]),
        b"".join((UIDS[1], UIDS[0], *UIDS[2:])),
        b"".join((UIDS[0], *UIDS)),
        b"".join(UIDS)[:-1] + b"\n",
        b"".join((*UIDS[:3], explicit(0x0020000E, b"UI", b"../../../tmp/evil"))),
        b"".join((*UIDS[:3], explicit(0x0020000E, b"UI", b"1" * 130))),
        b"".join((UIDS[0], explicit(0x00080018, b"UI", b"1" * 66), *UIDS[2:])),
        b"".join((*UIDS[:3], explicit(0x0020000E, b"UI", b"1.2\\1.3"))),
        UIDS[0] + struct.pack("<HH2sHL", 0x0008, 0x0017, b"OB", 0, 0xFFFFFFF0),
        UIDS[0] + struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF),
    ],
)
def test_anything_else_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableInstance):
        read(data)


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_raise_anything_else(data: bytes, implicit_vr: bool) -> None:
    try:
        identity = read(b"".join(UIDS[:2]) + data, implicit_vr=implicit_vr)
    except UnreadableInstance:
        return
    assert all(re.fullmatch("[0-9.]{1,128}", uid) for uid in (identity.series_uid, identity.study_uid))


@pytest.mark.parametrize("length", [65, 66, 127, 128])
def test_uids_of_study_and_series_may_be_longer_than_the_standard_allows(length: int) -> None:
    uid = b"1." + b"2" * (length - 2)
    long = explicit(0x0020000D, b"UI", uid), explicit(0x0020000E, b"UI", uid + b"\0" * (length % 2))
    identity = read(b"".join((*UIDS[:2], *long)))
    assert identity.study_uid == identity.series_uid == uid.decode()


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (b"".join(UIDS), IDENTITY),
        (b"".join(UIDS[:2]), InstanceIdentity("1.2.840", "1.3", "", "")),
        (
            b"".join((UIDS[0], explicit(0x00080018, b"UI", b"1" * 300), *UIDS[2:])),
            InstanceIdentity("1.2.840", "", "1.4", "1.55"),
        ),
        (
            b"".join((UIDS[0], explicit(0x00080018, b"UI", b"../../x"), *UIDS[2:])),
            InstanceIdentity("1.2.840", "", "1.4", "1.55"),
        ),
        (b"".join((*UIDS[:3], b"\x20\x00\x0e\x00UI")), InstanceIdentity("1.2.840", "1.3", "1.4", "")),
        (b"garbage", InstanceIdentity("", "", "", "")),
        (b"", InstanceIdentity("", "", "", "")),
    ],
    ids=["whole", "half", "a UID of 300 characters", "a path", "cut off", "garbage", "nothing"],
)
def test_of_what_is_not_stored_the_known_uids_are_told(data: bytes, known: InstanceIdentity) -> None:
    assert glimpse(data, implicit_vr=False) == known


@given(st.binary(max_size=400), st.booleans())
def test_a_glimpse_raises_nothing_and_tells_uids_only(data: bytes, implicit_vr: bool) -> None:
    known = glimpse(b"".join(UIDS[:2]) + data, implicit_vr=implicit_vr)
    assert all(re.fullmatch("[0-9.]{0,128}", uid) for uid in vars(known).values())


def test_a_deflated_data_set_is_inflated_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(b"".join(UIDS) + bytes(1 << 20)) + deflater.flush()
    monkeypatch.setattr(header, "MAX_INFLATED_BYTES", 1000)
    assert len(inflated(bomb)) == 1000
    assert glimpse(inflated(bomb), implicit_vr=False) == IDENTITY
    with pytest.raises(UnreadableInstance, match="not deflated"):
        inflated(b"\xff" * 20)
