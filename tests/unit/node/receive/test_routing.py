"""The first route whose conditions all hold; what is not known, or known twice, makes a person look."""

from typing import Any

import pytest

from node.dicom.attribute_rules import Rule
from node.receive.routing import Call, Choice, Route, choose, keywords_of


class Header:
    """One slice, of which only the attributes are asked."""

    def __init__(self, **values: str) -> None:
        self._values = values

    def attribute(self, keyword: str) -> tuple[str, ...]:
        return (self._values[keyword],) if self._values[keyword] else ()


def of_neck(*, values: tuple[str, ...] = ("NECK",)) -> Rule:
    return Rule("BodyPartExamined", "one_of", values, "-")


TITLE = Route("title", called_ae=("NODE_NECK",), destinations=("tps2",))
SENDER = Route("sender", calling_ae=("CTSIM2",))
HEADER = Route("header", rules=(of_neck(),), bundle="neck")


USUAL = Call("NODE", "CTSIM")


def chosen(*routes: Route, call: Call = USUAL, parts: tuple[str, ...] = ("NECK", "NECK")) -> Choice:
    headers: Any = [Header(BodyPartExamined=part) for part in parts]
    return choose(routes, call, headers)


def test_the_first_route_that_holds_is_taken_and_the_others_say_why_not() -> None:
    choice = chosen(TITLE, SENDER, HEADER, Route("all"))
    assert choice.route == HEADER
    assert choice.why == "route header: BodyPartExamined one_of NECK"
    assert [(one.route, one.condition, one.found) for one in choice.missed] == [
        ("title", "called as NODE_NECK", ("NODE",)),
        ("sender", "sent by CTSIM2", ("CTSIM",)),
    ]
    assert choice.doubt == ""


def test_all_conditions_of_a_route_must_hold_and_each_slice_must_meet_a_rule() -> None:
    both = Route("both", called_ae=("NODE",), calling_ae=("CTSIM", "CTSIM2"), rules=(of_neck(),))
    assert chosen(both).route == both
    assert chosen(both, call=Call("NODE", "OTHER")).route is None
    (missed,) = chosen(both, parts=("NECK", "CHEST", "")).missed
    assert (missed.keyword, missed.found, missed.slices) == ("BodyPartExamined", ("CHEST",), 2)


@pytest.mark.parametrize("routes", [(), (TITLE, SENDER)])
def test_without_a_route_nothing_is_chosen(routes: tuple[Route, ...]) -> None:
    choice = chosen(*routes)
    assert (choice.route, choice.doubt) == (None, "")
    assert choice.why == ("none of the routes title, sender matches" if routes else "")


def test_a_title_that_nobody_knows_may_have_meant_another_route() -> None:
    choice = chosen(TITLE, HEADER, call=Call("", "CTSIM"))
    assert choice.route == HEADER
    assert choice.doubt == "by which AE title it came is not known, so that route title may have been meant"
    # A known condition that fails says that it was not meant, and a route behind the taken one is not asked.
    narrow = Route("narrow", called_ae=("NODE_NECK",), rules=(of_neck(values=("CHEST",)),))
    assert chosen(narrow, HEADER, TITLE, call=Call("", "CTSIM")).doubt == ""


def test_the_first_title_counts_and_another_one_is_a_doubt_only_where_it_leads_elsewhere() -> None:
    choice = chosen(TITLE, HEADER, call=Call("NODE", "CTSIM", ("NODE_NECK",)))
    assert choice.route == HEADER
    assert choice.doubt == (
        "it came under the AE titles NODE and NODE_NECK, which lead to route header and to route title; "
        "route header was taken"
    )
    assert chosen(HEADER, call=Call("NODE", "CTSIM", ("NODE_NECK",))).doubt == ""


def test_headers_are_read_with_what_the_rules_look_at() -> None:
    assert keywords_of((TITLE, HEADER, HEADER)) == ("BodyPartExamined",)
