"""An audit entry as an audit message of DICOM PS3.15 A.5, in XML.

The schema is that of A.5.1; which event a deed is comes from A.5.3: a login is a User Authentication (110114), a look
at images or at a patient's ID is DICOM Instances Accessed (110103), and so is what a person decides about a series,
unless it sends a result out (Export, 110106). A search for a patient is a Query (110112). Its text, and the patient
whom A.5.3 wants beside the study, are left out: no patient data leaves the node, and the study's UID leads to him.
"""

import base64
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from storage.audit import AuditEntry

_Code = tuple[str, str]
_AUTHENTICATION: Final[_Code] = ("110114", "User Authentication")
_ACCESSED: Final[_Code] = ("110103", "DICOM Instances Accessed")
_EXPORT: Final[_Code] = ("110106", "Export")
_SECURITY_ALERT: Final[_Code] = ("110113", "Security Alert")
_APPLICATION: Final[_Code] = ("110150", "Application")
_QUERY: Final[_Code] = ("110112", "Query")
_SOURCE: Final[_Code] = ("110153", "Source Role ID")
_STUDY_UID: Final[_Code] = ("110180", "Study Instance UID")

_EVENTS: Final[dict[str, tuple[_Code, str, _Code | None]]] = {
    "login": (_AUTHENTICATION, "E", ("110122", "Login")),
    "logout": (_AUTHENTICATION, "E", ("110123", "Logout")),
    "see patient": (_ACCESSED, "R", None),
    "see images": (_ACCESSED, "R", None),
    "find patient": (_QUERY, "E", None),
    "release": (_EXPORT, "R", None),
    "resend": (_EXPORT, "R", None),
    "reject": (_ACCESSED, "U", None),
    "cancel": (_ACCESSED, "U", None),
    "drop": (_ACCESSED, "D", None),
    "purge": (_ACCESSED, "D", None),
    "forbidden": (_SECURITY_ALERT, "E", ("110132", "Use of Restricted Function")),
}
"""Event, action (C, R, U, D or E) and kind of event; whatever is not here changes a series."""

_OUTCOMES: Final = {"ok": "0", "refused": "4", "locked": "8"}  # success, minor and serious failure; 8 for the rest


def audit_message(entry: AuditEntry, study_uid: str, node_name: str) -> bytes:
    """The message in UTF-8. study_uid: of the study that the deed concerns, or ""."""
    event, action, kind = _EVENTS.get(entry.action, (_ACCESSED, "U", None))
    root = Element("AuditMessage")
    identification = SubElement(
        root,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=entry.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        EventOutcomeIndicator=_OUTCOMES.get(entry.outcome, "8"),
    )
    _add_code(identification, "EventID", event)
    if kind is not None:
        _add_code(identification, "EventTypeCode", kind)
    if entry.outcome != "ok":
        SubElement(identification, "EventOutcomeDescription").text = _xml_text(entry.outcome)
    _add_participants(root, entry, node_name, is_export=event is _EXPORT)
    source = SubElement(root, "AuditSourceIdentification", AuditSourceID=_xml_text(node_name))
    SubElement(source, "AuditSourceTypeCode", {"csd-code": "3"})  # a web server
    if event not in (_AUTHENTICATION, _SECURITY_ALERT, _QUERY):
        _add_study(root, entry, study_uid)
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True))


def _add_participants(root: Element, entry: AuditEntry, node_name: str, *, is_export: bool) -> None:
    """The person at his address, and the node; in an export both are where the images come from (A.5.3.6)."""
    person = SubElement(
        root,
        "ActiveParticipant",
        UserID=_xml_text(entry.who or "unknown"),
        UserIsRequestor="true",
        NetworkAccessPointID=_xml_text(entry.address or "unknown"),
        NetworkAccessPointTypeCode="2",
    )
    node = SubElement(root, "ActiveParticipant", UserID=_xml_text(node_name), UserIsRequestor="false")
    if is_export:
        _add_code(person, "RoleIDCode", _SOURCE)
    _add_code(node, "RoleIDCode", _SOURCE if is_export else _APPLICATION)


def _add_study(root: Element, entry: AuditEntry, study_uid: str) -> None:
    found = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_xml_text(study_uid or "unknown"),
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    _add_code(found, "ParticipantObjectIDTypeCode", _STUDY_UID)
    SubElement(found, "ParticipantObjectName").text = _xml_text(f"case {entry.case_id}".strip())
    for kind, value in (("action", entry.action), ("reason", entry.detail)):
        if value:
            encoded = base64.b64encode(value.encode(errors="replace")).decode()
            SubElement(found, "ParticipantObjectDetail", type=kind, value=encoded)


def _add_code(parent: Element, tag: str, code: _Code) -> None:
    value, meaning = code
    attributes = {"csd-code": value, "codeSystemName": "DCM", "displayName": meaning, "originalText": meaning}
    SubElement(parent, tag, attributes)


def _xml_text(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
