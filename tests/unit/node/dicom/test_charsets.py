"""Character sets: what senders misspell is mended, and what nobody knows is told from what can be read."""

import pytest

from node.dicom.charsets import (
    ENCODINGS,
    ISO_8859_PARTS,
    SPELLINGS,
    character_set,
    cut_text,
    decode_exactly,
    decode_text,
)

YAMADA = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"


@pytest.mark.parametrize(
    ("received", "meant"),
    [
        ("ISO-IR 100", "ISO_IR 100"),
        ("ISO_IR_192", "ISO_IR 192"),
        ("ISO IR 192", "ISO_IR 192"),
        ("iso_ir 144", "ISO_IR 144"),
        ("UTF-8", "ISO_IR 192"),
        ("utf8", "ISO_IR 192"),
        ("latin1", "ISO_IR 100"),
        ("ISO-8859-5", "ISO_IR 144"),
        ("ISO8859-15", "ISO_IR 203"),
        ("gb18030", "GB18030"),
        ("GB2312", "GB18030"),
        ("ISO_2022_IR_6", "ISO 2022 IR 6"),
        ("ISO 2022 IR100", "ISO 2022 IR 100"),
        ("\\ISO-2022-IR-87", "\\ISO 2022 IR 87"),
        ("ISO_IR 13\\ISO_IR 87", "ISO 2022 IR 13\\ISO 2022 IR 87"),
        ("ISO_IR 192\\ISO 2022 IR 87", "ISO_IR 192"),
    ],
)
def test_known_misspellings_are_the_defined_term(received: str, meant: str) -> None:
    found = character_set(tuple(received.split("\\")))
    assert "\\".join(found.terms) == meant
    assert not found.unknown
    assert not found.unknown_extensions
    assert character_set(found.terms) == found


def test_every_defined_term_means_itself_and_every_spelling_one_of_them() -> None:
    assert [term for term in ENCODINGS if term and character_set((term,)).terms != (term,)] == []
    assert set(SPELLINGS.values()) <= set(ENCODINGS)
    assert {f"ISO_IR {number}" for number in ISO_8859_PARTS.values()} <= set(ENCODINGS)


@pytest.mark.parametrize(
    "received", ["WINDOWS-1251", "NONSENSE", "IR 100", "ISO_IR 999", "\xff\xfe", "X\\ISO 2022 IR 87", "ISO_IR 6\\UTF-8"]
)
def test_an_unknown_set_is_kept_and_leaves_open_what_is_not_ascii(received: str) -> None:
    values = tuple(received.split("\\"))
    found = character_set(values)
    assert found.unknown
    assert found.terms == values
    assert found.leaves_open(b"M\xfcller")
    assert found.leaves_open(YAMADA)
    assert not found.leaves_open(b"Mueller^Anna")
    assert decode_exactly(b"M\xfcller", values) is None
    assert decode_text(b"M\xfcller", values)


@pytest.mark.parametrize("received", [("ISO 2022 IR 6", "IS"), ("ISO_IR 100", "ISO 2022 IR"), ("", "JIS")])
def test_an_unknown_further_value_matters_to_escape_sequences_only(received: tuple[str, ...]) -> None:
    found = character_set(received)
    assert not found.unknown
    assert found.terms == received
    assert not found.leaves_open("Иванов".encode("cp1251"))
    assert found.leaves_open(YAMADA)


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (("ISO_IR_192",), "Müller".encode(), "Müller"),
        (("Latin-1",), b"M\xfcller", "Müller"),
        (("", "ISO-2022-IR-87"), YAMADA, "Yamada^Tarou=山田^太郎"),
        (("gb18030",), "平扫".encode("gb18030") + b"\x81\x5c", "平扫" + b"\x81\x5c".decode("gb18030")),
        (("ISO_IR 203",), b"\xa4", "€"),
        (("ISO_IR 192",), b"broken \xc3(", None),
        ((), b"M\xfcller", None),
        (("ISO 2022 IR 6", "IS"), b"\xc8", None),
    ],
)
def test_text_that_is_none_in_its_set_is_told_apart(charset: tuple[str, ...], raw: bytes, text: str | None) -> None:
    assert decode_exactly(raw, charset) == text
    assert decode_text(raw, charset)


@pytest.mark.parametrize(
    ("charset", "raw", "cut"),
    [
        ((), b"abcdef", b"abc"),
        (("ISO_IR 192",), "äöüß".encode(), "äöü".encode()),
        (("GB18030",), "平扫".encode("gb18030") + b"\x81\x5c!", "平扫".encode("gb18030") + b"\x81\x5c"),
        (("ISO_IR 100",), b"a\xe4 b", b"a\xe4"),
        (("", "ISO 2022 IR 87"), YAMADA, None),
        (("NONSENSE",), b"M\xfcller", None),
        ((), "жжжж".encode("cp1251"), None),
    ],
)
def test_text_is_cut_between_characters_or_not_at_all(charset: tuple[str, ...], raw: bytes, cut: bytes | None) -> None:
    assert cut_text(raw, 3, charset) == cut
