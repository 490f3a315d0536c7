"""Rule: one condition on one attribute, checked when it is made."""

import pytest

from node.dicom.attribute_rules import Rule


@pytest.mark.parametrize(
    ("op", "values", "found", "holds"),
    [
        ("equals", ("CHEST",), ("CHEST",), True),
        ("equals", ("CHEST",), ("Chest",), False),
        ("equals", ("A\\B",), ("A", "B"), True),
        ("one_of", ("CHEST", "THORAX"), ("THORAX",), True),
        ("one_of", ("CHEST",), (), False),
        ("not_one_of", ("HEAD",), ("CHEST",), True),
        ("not_one_of", ("HEAD",), ("HEAD",), False),
        ("not_one_of", ("HEAD",), (), True),
        ("matches", ("B[34]0.*",), ("B40f",), True),
        ("matches", ("B[34]0",), ("B40f",), False),
        ("matches", (".*",), ("x" * 65,), False),
        ("present", (), ("x",), True),
        ("present", (), (), False),
        ("present", (), ("",), False),
        ("absent", (), (), True),
        ("absent", (), ("x",), False),
        ("at_least", ("1.0",), ("2.5",), True),
        ("at_least", ("1.0",), ("0.5",), False),
        ("at_least", ("1.0",), (), False),
        ("at_most", ("5",), ("5.00",), True),
        ("at_most", ("5",), ("text",), False),
        ("at_most", ("5",), ("1", "2"), False),
    ],
)
def test_operations(op: str, values: tuple[str, ...], found: tuple[str, ...], holds: bool) -> None:
    assert Rule("ConvolutionKernel", op, values, "because").holds(found) is holds


@pytest.mark.parametrize(
    ("keyword", "op", "values", "reason", "says"),
    [
        ("BodyPart", "equals", ("x",), "r", "not a DICOM keyword"),
        ("RequestAttributesSequence", "present", (), "r", "VR SQ"),
        ("PixelData", "present", (), "r", "VR OW"),
        ("BodyPartExamined", "like", ("x",), "r", "not one of equals"),
        ("BodyPartExamined", "equals", (), "r", "takes 1 values, not 0"),
        ("BodyPartExamined", "present", ("x",), "r", "takes 0 values"),
        ("BodyPartExamined", "matches", ("(",), "r", "no regular expression"),
        ("BodyPartExamined", "matches", ("(a)\\1",), "r", "uses a back-reference"),
        ("BodyPartExamined", "matches", ("a{99999999999}",), "r", "no regular expression"),
        ("BodyPartExamined", "matches", ("x" * 201,), "r", "longer than 200"),
        ("SliceThickness", "at_most", ("thin",), "r", "no number"),
        ("BodyPartExamined", "present", (), " ", "reason"),
    ],
)
def test_a_bad_rule_says_what_is_wrong(keyword: str, op: str, values: tuple[str, ...], reason: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rule(keyword, op, values, reason)


def test_a_value_that_somebody_chose_does_not_hold_up_a_pattern_written_without_care() -> None:
    rule = Rule("PatientID", "matches", ("([A-Z]+[0-9]*)+",), "because")
    assert not rule.holds(("A" * 63 + "!",))
    assert rule.holds(("A" * 63 + "1",))
