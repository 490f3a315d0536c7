"""Reads the answer to a store request: the Store Instances Response Module (PS3.18 10.5.3 and annex I.2).

An instance counts as stored where the answer names it, never by the HTTP status alone.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from node.network.dicomweb import Answer
from node.network.status import SUCCESS, Reading, Verdict, classify

_FAILED, _REFERENCED, _OTHER = "00081198", "00081199", "0008119A"  # sequences
_INSTANCE_UID, _FAILURE, _WARNING = "00081155", "00081197", "00081196"
_MAX_DEPTH: Final = 32  # of XML; what is read lies five levels deep

_ALREADY_THERE: Final = (
    0x0111,  # duplicate SOP instance, PS3.7 annex C
    45070,  # the same of Microsoft's DICOM service, in the range of warnings and yet among the failures
)
"""Failure reasons that mean that the server has the instance; its content is ours, because its UID is made from it."""

_Item = Mapping[str, Any]


def readings(answer: Answer, uids: Sequence[str]) -> dict[str, tuple[int, Reading]]:
    """What the server says of each instance that it was sent, by SOP Instance UID: the number, and its meaning.

    The number is 0, a WarningReason or a FailureReason, all three of the C-STORE statuses. Nothing else of an answer is
    used or quoted.
    """
    module = _module(answer.body)
    if module is None:
        words = f"the answer {answer.status} is no Store Instances Response, so nobody says that it is stored"
        return dict.fromkeys(uids, (SUCCESS, Reading(Verdict.UNCLEAR, words)))
    failed = {_uid(item): _number(item, _FAILURE) for item in _items(module, _FAILED)}
    stored = {_uid(item): _number(item, _WARNING) for item in _items(module, _REFERENCED)}
    others = [_number(item, _FAILURE) for item in _items(module, _OTHER)]
    is_accepted = answer.status != 400  # a bad request stores nothing, whatever stands in the body
    found = {}
    for uid in uids:
        if uid in failed:
            found[uid] = _failure(failed[uid])
        elif uid in stored and is_accepted:
            found[uid] = _success(stored[uid])
        elif others:
            found[uid] = _failure(others[0])
        else:
            found[uid] = (SUCCESS, Reading(Verdict.UNCLEAR, f"the answer {answer.status} does not name it"))
    return found


def _success(warning: int | None) -> tuple[int, Reading]:
    if not warning:
        return SUCCESS, classify(SUCCESS)
    reading = classify(warning)
    if not reading.stored:  # a number that no table knows as a warning; the server says all the same that it is stored
        reading = Reading(Verdict.STORED_WITH_WARNING, f"warning reason {warning:04X}")
    return warning, reading


def _failure(reason: int | None) -> tuple[int, Reading]:
    if reason is None:
        return SUCCESS, Reading(Verdict.UNCLEAR, "the server names it among the failed ones, without a reason")
    if reason in _ALREADY_THERE:
        return reason, Reading(Verdict.STORED_WITH_WARNING, f"failure reason {reason:04X}: the server has it already")
    reading = classify(reason)
    if reading.stored:
        reading = Reading(Verdict.UNCLEAR, f"failure reason {reason:04X}: not defined for a failure")
    return reason, reading


# -- DICOM JSON and Native DICOM Model -------------------------------------------------------------------------


def _module(body: bytes) -> _Item | None:
    """The answer by tag, as DICOM JSON (PS3.18 F.2) writes it; None where it is none. Never raises."""
    text = body.lstrip(b"\xef\xbb\xbf \t\r\n")
    try:
        found = _attributes(_tree(text)) if text.startswith(b"<") else json.loads(text)
    except Exception:  # whatever malformed bytes make a parser stumble over, a recursion without end among it
        return None
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    return found if isinstance(found, dict) and (_FAILED in found or _REFERENCED in found or _OTHER in found) else None


def _items(module: _Item, tag: str) -> list[_Item]:
    sequence = module.get(tag)
    values = sequence.get("Value") if isinstance(sequence, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _value(item: _Item, tag: str) -> Any:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _uid(item: _Item) -> str:
    return str(_value(item, _INSTANCE_UID)).strip(" \0")


def _number(item: _Item, tag: str) -> int | None:
    """A number of 16 bits; XML, and some servers in JSON, write it as text."""
    text = str(_value(item, tag)).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 and int(text) <= 0xFFFF else None


def _tree(text: bytes) -> Element:
    """The elements of an XML text; raises for one that is malformed, has a DTD or is deep."""
    builder, parser = TreeBuilder(), expat.ParserCreate(namespace_separator=" ")
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")
        builder.start(name.rpartition(" ")[2], attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name.rpartition(" ")[2])

    def refuse(*_: Any) -> None:
        raise ValueError("a DTD could define entities without end")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(text, True)
    return builder.close()


def _attributes(parent: Element) -> dict[str, Any]:
    """The attributes below an element of the Native DICOM Model (PS3.19 A.1), as DICOM JSON writes them."""
    found = {}
    for attribute in parent.findall("DicomAttribute"):
        values: list[Any] = [_attributes(item) for item in attribute.findall("Item")]
        found[attribute.get("tag", "").upper()] = {"Value": values or [one.text for one in attribute.findall("Value")]}
    return found
