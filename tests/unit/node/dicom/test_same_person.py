"""Whether two systems mean the same person: what counts in a name and a birth date, and what does not."""

import pytest

from node.dicom.same_person import differing

NAME, BIRTH = "PatientName", "PatientBirthDate"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Berg^Anna", "BERG^ANNA"),
        ("Berg^Anna", "Berg^Anna^^^"),
        ("Berg^Anna", " Berg ^ Anna "),
        ("Berg^Anna Maria", "Berg^Anna  Maria"),
        ("Straße^Jörg", "STRASSE^JÖRG"),
        ("Jo\u0308rg", "J\u00f6rg"),
        ("Yamada^Tarou", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("Yamada^Tarou=山田^太郎", "yamada^tarou=山本^太郎"),
        ("=山田^太郎", "=山田^太郎"),
        ("Berg^Anna", ""),
        ("", "Berg^Anna"),
        ("^^", "Berg^Anna"),
    ],
)
def test_the_same_name(ours: str, theirs: str) -> None:
    assert differing({NAME: ours}, {NAME: theirs}) == ()
    assert differing({NAME: theirs}, {NAME: ours}) == ()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Berg^Anna", "Berg^Anne"),
        ("Berg^Anna", "Anna^Berg"),
        ("Berg^Anna", "Berg"),
        ("Berg^Anna", "Berg Anna"),
        ("Berg^Anna", "Berg^Anna^Maria"),
        ("Berg^Anna", "Berg^Anna^^Dr."),
        ("M\u00fcller^Eva", "Mueller^Eva"),
        ("=山田^太郎", "=山本^太郎"),
        ("Yamada^Tarou", "=山田^太郎"),
    ],
)
def test_another_name(ours: str, theirs: str) -> None:
    assert differing({NAME: ours}, {NAME: theirs}) == (NAME,)
    assert differing({NAME: theirs}, {NAME: ours}) == (NAME,)


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [
        ("19700131", "19700131", False),
        ("19700131", "1970.01.31", False),
        ("19700131", "19700131 ", False),
        ("19700131", "", False),
        ("", "19700131", False),
        ("19700131", "19710131", True),
        ("19700131", "1970", True),
    ],
)
def test_a_birth_date(ours: str, theirs: str, differs: bool) -> None:
    assert differing({BIRTH: ours}, {BIRTH: theirs}) == ((BIRTH,) if differs else ())


def test_both_are_named_where_both_differ() -> None:
    assert differing({NAME: "A", BIRTH: "19700131"}, {NAME: "B", BIRTH: "19710131"}) == (NAME, BIRTH)
