"""Words in headers: what means no agent, and whole words only."""

import pytest

from node.dicom.terms import find_word
from node.receive.words import CONTRAST_DENIED, CONTRAST_GIVEN, denies_agent, is_unknown, says_contrast


@pytest.mark.parametrize(
    "agent",
    [
        *("NONE", "None", "NO", "No contrast", "C-", "N/A", "NA", "WITHOUT", "W/O", "NATIVE", "nativ", "OHNE", "sans"),
        *("SENZA", "SIN", "0", "-", "--", "NIL", "KEIN", "n.a.", "none.", "(none)", "No IV contrast", "ohne KM"),
        *("Kein Kontrastmittel", "sans injection", "senza mezzo di contrasto", "sin contraste", "0 ml", "W/O contrast"),
        *("non-contrast", "unenhanced", "Not given", "not applicable", "zonder contrast", "WO IV CONTRAST", " NONE "),
        *("KM-", "C -", "s/c", "Non injecté", "not administered", "niet toegediend", "0 cc", "não", "без контраста"),
    ],
)
def test_words_for_no_agent(agent: str) -> None:
    assert denies_agent((agent,))


@pytest.mark.parametrize(
    "agent",
    [
        *(
            "",
            "ULTRAVIST 370",
            "Omnipaque",
            "NON IONIC",
            "YES",
            "C+",
            "100",
            "70 ML",
            "CONTRAST",
            "IV",
            "Visipaque no 3",
        ),
        *("None-onic", "NATIVERON", "KM", "UNKNOWN", "JOD 300", "IODINE"),
    ],
)
def test_an_agent_stays_one(agent: str) -> None:
    assert not denies_agent((agent,))


def test_all_values_must_say_no() -> None:
    assert denies_agent(("NONE", "NO"))
    assert not denies_agent(("NONE", "ULTRAVIST"))
    assert not denies_agent(())


def test_nobody_knows() -> None:
    assert is_unknown(("unknown",))
    assert is_unknown(("?",))
    assert not is_unknown(())
    assert not is_unknown(("NONE",))


@pytest.mark.parametrize(
    ("terms", "text", "found"),
    [
        (("MAR",), "MARIA", ""),
        (("MAR",), "PALMAR", ""),
        (("MAR",), "Pelvis_MAR_3.0", "MAR"),
        (("SMART MAR",), "SmartMAR", "SMARTMAR"),
        (("SMART MAR",), "smart-mar", "SMART-MAR"),
        (("GSI",), "GSIX", ""),
        (("# KEV",), "Mono 60 keV", "60 KEV"),
        (("# KEV",), "Mono 67.5keV", "67.5KEV"),
        (("# % EX",), "50% Ex", "50% EX"),
        (("# % EX",), "50% Extra", ""),
        (("C+",), "C+60s", "C+"),
        (("C+",), "AC+", ""),
        (("C-",), "C-Spine", ""),
        (("C-",), "Chest C-/Thorax", "C-"),
        (("SD #*",), "Sd36f", "SD36F"),
        (("VENOS",), "Leber venös", "VENOS"),
        (("VENOS",), "Leber veno\u0308s", "VENOS"),
        (("INJECTE",), "thorax injecté", "INJECTE"),
        (("CE",), "\uff23\uff25 60s", "CE"),
        (("C+",), "胸部C\uff0b", "C+"),
        (("造影",), "胸部造影CT", "造影"),
        (("CE",), "胸部CE", "CE"),
        (("CE",), "Paceport", ""),
    ],
)
def test_terms_are_whole_words(terms: tuple[str, ...], text: str, found: str) -> None:
    assert find_word(terms, text) == found


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([("SeriesDescription", "Thorax C+")], "SeriesDescription names C+"),
        ([("SeriesDescription", "Thorax"), ("ProtocolName", "Thorax KM")], "ProtocolName names KM"),
        ([("SeriesDescription", "Thorax C-"), ("ProtocolName", "Thorax KM")], ""),
        ([("SeriesDescription", "C-/C+"), ("ImageComments", "post contrast")], "ImageComments names POST CONTRAST"),
        ([("SeriesDescription", "no contrast")], ""),
        ([("SeriesDescription", "IV contrast: no")], ""),
        ([("ImageComments", "KM nein, Maske")], ""),
        ([("ImageComments", "IV contrast: no reaction")], "ImageComments names CONTRAST"),
        ([], ""),
    ],
)
def test_the_first_text_that_says_either_decides(texts: list[tuple[str, str]], said: str) -> None:
    assert says_contrast(texts) == said


@pytest.mark.parametrize(
    "term", [*CONTRAST_DENIED, "ohne KM", "Nativ ohne i.v. KM", "W AND W/O CONTRAST", "no IV contrast"]
)
def test_a_denial_decides_before_the_protocol(term: str) -> None:
    assert says_contrast([("SeriesDescription", f"Thorax {term} 3.0"), ("ProtocolName", "Thorax C+")]) == ""


@pytest.mark.parametrize("term", CONTRAST_GIVEN)
def test_every_word_for_contrast_is_found(term: str) -> None:
    assert says_contrast([("SeriesDescription", f"Thorax {term} 3.0")])
