"""The input gate: which series is translated, which is left alone and why. It judges headers that others read.

Read RULES (node/receive/rules.py and doubts.py), the geometry, then the site's own rules: the first that a series
breaks is its reason. What a person must look at is told with the series that is accepted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from node.dicom.attribute_rules import Rule
from node.dicom.geometry import Flaw, FlawKind, describe_stack, why_not_transverse
from node.dicom.headers import SliceHeader
from node.dicom.lattice import POSITION_TOLERANCE_MM
from node.dicom.volume import plane_of
from node.receive.doubts import DOUBTS
from node.receive.findings import why_parts_missing
from node.receive.gate_rule import GateRule, SeriesRule, Topic
from node.receive.rules import IDENTITY, KINDS

DEFAULT_MIN_SLICES: Final = 8


@dataclass(frozen=True, slots=True)
class Accept:
    """The series is a non-contrast CT on one gap-free lattice; spacing_mm is the step between its slices.

    doubt: why a person must look at the result before it is sent, clauses without patient data; "" for no reason.
    """

    slices: int
    spacing_mm: float
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """The series is not for this node. code: a stable name of the rule. reason: a clause without patient data.

    depends_on_count: True where more slices could change the verdict, so that a broken-off transfer proves nothing.
    """

    code: str
    reason: str
    depends_on_count: bool = False


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Slices are missing between those that arrived, or parts of an object; more of them may still come."""

    reason: str


Verdict = Accept | Skip | Incomplete


@dataclass(frozen=True, slots=True)
class EligibilityPolicy:
    """What a site decides. Raises ValueError for min_slices below 2, which would leave no geometry to check.

    position_tolerance_mm: how far a slice may lie from the lattice of its series.
    metal_artifact_reduction: whether such a series is held for a person or processed like any other. takes_contrast:
    enhanced scans are wanted too, so that no rule about contrast agent is asked. takes_virtual: so are images that
    were calculated from a spectral scan, so that no rule about those is asked; whoever says so knows what they are.
    also_read: keywords of further attributes that somebody else looks at in the same headers.
    """

    min_slices: int = DEFAULT_MIN_SLICES
    position_tolerance_mm: float = POSITION_TOLERANCE_MM
    rules: tuple[Rule, ...] = ()
    metal_artifact_reduction: Literal["hold", "process"] = "hold"
    takes_contrast: bool = False
    takes_virtual: bool = False
    also_read: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.min_slices < 2:
            raise ValueError(f"min_slices must be at least 2, not {self.min_slices}")

    @property
    def keywords(self) -> tuple[str, ...]:
        """Attributes that the site rules look at, and `also_read`: `read_header` must be asked for them."""
        return tuple(sorted({*(rule.keyword for rule in self.rules), *self.also_read}))

    def asks(self, rule: GateRule) -> bool:
        """Whether a rule of RULES counts at this site."""
        if rule.topic is Topic.METAL:
            return self.metal_artifact_reduction == "hold"
        if rule.topic is Topic.VIRTUAL:
            return not self.takes_virtual
        return rule.topic is not Topic.CONTRAST or not self.takes_contrast


def judge(headers: Sequence[SliceHeader], policy: EligibilityPolicy) -> Verdict:
    """Decide over all headers of one series, read with `policy.keywords`.

    The first broken rule decides: kind, identity, parts of an object, number of slices, geometry, site rules. Slices
    that are missing at either end cannot be seen. Raises KeyError where a header lacks the policy's keywords.
    """
    if not headers:
        return Skip("too_few_slices", "the series holds no readable image")
    for rule in (*KINDS, *IDENTITY):
        if policy.asks(rule) and (clause := _broken(rule, headers)):
            return Skip(rule.code, clause)
    if missing := why_parts_missing(headers):
        return Incomplete(missing)
    if len(headers) < policy.min_slices:
        reason = f"the series has only {_images(len(headers))} of {policy.min_slices} needed"
        return Skip("too_few_slices", reason, depends_on_count=True)
    geometry = _judge_geometry(headers, policy.position_tolerance_mm)
    if not isinstance(geometry, Accept):
        return geometry
    for site_rule in policy.rules:
        if broken := sum(1 for header in headers if not site_rule.holds(header.attribute(site_rule.keyword))):
            return Skip("site_rule", site_rule.reason + _how_many(broken, len(headers)))
    doubts = [clause for rule in DOUBTS if policy.asks(rule) and (clause := _broken(rule, headers))]
    return replace(geometry, doubt="; ".join(doubts))


def _broken(rule: GateRule, headers: Sequence[SliceHeader]) -> str:
    """The reason of a rule with what it found, and in how many images; "" where no image breaks it."""
    if isinstance(rule, SeriesRule):
        answers = [answer] if (answer := rule.breaks(headers)) else []
        count = ""
    else:
        answers = [answer for header in headers if (answer := rule.breaks(header))]
        count = _how_many(len(answers), len(headers))
    if not answers:
        return ""
    found = f"{answers[0]}: " if isinstance(answers[0], str) else ""
    return f"{found}{rule.reason}{count}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _how_many(broken: int, total: int) -> str:
    """Says so where only a part of the series breaks a rule: a mixed series is another case than a wrong one."""
    return "" if broken == total else f" ({broken} of {total} images)"


def _judge_geometry(headers: Sequence[SliceHeader], position_tolerance_mm: float) -> Verdict:
    planes = [plane for header in headers if (plane := plane_of(header)) is not None]
    stack = describe_stack(planes, position_tolerance_mm)
    if isinstance(stack, Flaw) and not stack.more_slices_could_mend_it:
        return Skip(stack.kind.value, stack.reason)
    if slant := next(filter(None, (why_not_transverse(plane.orientation) for plane in planes)), ""):
        return Skip("not_transverse", f"the images are not transverse: {slant}")
    if not isinstance(stack, Flaw):
        return Accept(len(headers), stack.spacing_mm)
    if stack.kind is FlawKind.INTERIOR_GAP:
        return Incomplete(stack.reason)
    return Skip(stack.kind.value, stack.reason, depends_on_count=True)
