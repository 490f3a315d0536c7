"""Pattern: the same answers as `re.fullmatch`, in bounded time."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dicom.patterns import Pattern, UnusablePattern

SAME = [
    *(
        "",
        "a",
        "CHEST|THORAX",
        "B[34]0.*",
        "(?i)chest",
        r"\w+\s?\d*",
        "a{2,3}",
        "a{0}",
        "(a|ab)(c|bcd)(d*)",
        "(a?){3}a{3}",
    ),
    *(
        "a*?b",
        "(?:a|b|)*",
        "^a$",
        r"\bCT\b.*",
        "(?!.*PHANTOM).*",
        "(?=a)ab",
        "[^a]*",
        "(?s:.)*",
        ".*",
        r"a\Z",
        "(?i:A)b",
    ),
    *("(a*)*", "((a|b)*c)*", "x{3,}", "(|a)+b", "(?m)^a$\n^b$", "(?x) a b # c", r"\u00e9", "(?a)\\w", "(^a|b)*"),
]
TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "aaa",
    "aaaa",
    "abcd",
    "CHEST",
    "chest",
    "THORAX",
    "B40f",
    "CT 1",
    "PHANTOM",
    "a\nb",
    "é",
    "É",
    "xxx",
]


@pytest.mark.parametrize("written", SAME)
def test_it_takes_what_python_takes(written: str) -> None:
    for text in TEXTS:
        assert Pattern(written).takes(text) is (re.fullmatch(written, text) is not None), text


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(
    st.recursive(
        st.sampled_from(["a", "b", ".", "[ab]", "^", "$", r"\b", "(?=a)", "(?!b)", ""]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,3}", "{2,}"])).map(
                lambda p: f"({p[0]}){p[1]}"
            ),
        ),
        max_leaves=5,
    ),
    st.text("ab", max_size=7),
)
def test_any_expression_takes_what_python_takes(written: str, text: str) -> None:
    assert Pattern(written).takes(text) is (re.fullmatch(written, text) is not None)


@pytest.mark.parametrize(
    "written",
    [
        *("([A-Z]+)*x", "(A|A)*x", "(.*)*x", "A*" * 60 + "x", "(A?){64}A{64}x", "(A{1,9}){1,64}x"),
        "(" * 40 + "A*" + ")*" * 40 + "x",
    ],
)
def test_no_expression_takes_long(written: str) -> None:
    begun = time.process_time()
    assert not Pattern(written).takes("A" * 64)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    "written", ["(", "a{99999999999}", "(a)\\1", "(?<=a)b", "(?>a*)a", "a*+", "(a)(?(1)b|c)", "a**"]
)
def test_what_cannot_be_judged_is_refused(written: str) -> None:
    with pytest.raises(UnusablePattern):
        Pattern(written)
