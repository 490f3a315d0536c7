"""What leaves the node for an audit server: XML after PS3.15 A.5.1, in syslog messages that delay nobody."""

import base64
import logging
import re
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from node.ops import audit_syslog
from node.ops.audit import Auditor
from node.ops.audit_message import audit_message
from node.ops.audit_syslog import Syslog, syslog_line
from node.web.access import Role
from storage.audit import AuditEntry

AT = datetime(2026, 1, 31, 12, 0, 0, 5000, tzinfo=UTC)

# Of the schema in PS3.15 A.5.1.1: attributes that must be there, attributes that may be there, and children in order.
CODED = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"}, "")
SCHEMA = {
    "AuditMessage": (
        set(),
        set(),
        "EventIdentification( ActiveParticipant)+ AuditSourceIdentification( ParticipantObjectIdentification)*",
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        "EventID( EventTypeCode)*( EventOutcomeDescription)?",
    ),
    "EventID": CODED,
    "EventTypeCode": CODED,
    "EventOutcomeDescription": (set(), set(), ""),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        "(RoleIDCode)?( RoleIDCode)*",
    ),
    "RoleIDCode": CODED,
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, "(AuditSourceTypeCode)*"),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "displayName", "originalText"}, ""),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"},
        "ParticipantObjectIDTypeCode ParticipantObjectName( ParticipantObjectDetail)*",
    ),
    "ParticipantObjectIDTypeCode": CODED,
    "ParticipantObjectName": (set(), set(), ""),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ""),
}
VALUES = {
    "EventActionCode": "[CRUDE]",
    "EventOutcomeIndicator": "0|4|8|12",
    "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "UserIsRequestor": "true|false",
    "NetworkAccessPointTypeCode": "[1-5]",
    "ParticipantObjectTypeCode": "[1-4]",
    "ParticipantObjectTypeCodeRole": "[1-9]|1[0-9]|2[0-6]",
    "value": "[A-Za-z0-9+/]*={0,2}",
}


def check(element: ElementTree.Element) -> None:
    required, allowed, children = SCHEMA[element.tag]
    assert required <= set(element.keys()), element.tag
    assert set(element.keys()) <= required | allowed, element.tag
    for name, value in element.items():
        assert value, name
        assert re.fullmatch(VALUES.get(name, ".*"), value), name
    assert re.fullmatch(children, " ".join(child.tag for child in element)), element.tag
    for child in element:
        check(child)


def message(action: str, outcome="ok", **fields: str) -> ElementTree.Element:
    study = fields.pop("study_uid", "")
    entry = AuditEntry(AT, fields.pop("who", "anna"), "10.0.0.7", action, outcome, **fields)
    return ElementTree.fromstring(audit_message(entry, study, "SYNCECT@ct"))


@pytest.mark.parametrize("outcome", ["ok", "refused", "locked", "failed", "else"])
@pytest.mark.parametrize(
    ("action", "event", "kind"),
    [
        ("login", "110114", "110122"),
        ("logout", "110114", "110123"),
        ("see images", "110103", None),
        ("see patient", "110103", None),
        ("find patient", "110112", None),
        ("release", "110106", None),
        ("reject", "110103", None),
        ("purge", "110103", None),
        ("forbidden", "110113", "110132"),
        ("acknowledge", "110103", None),
    ],
)
def test_every_message_is_after_the_schema(action, event, kind, outcome):
    found = message(action, outcome, case_id="12", detail="because <&> é", study_uid="1.2.3")
    check(found)
    assert found.findall(".//EventID")[0].get("csd-code") == event
    kinds = [one.get("csd-code") for one in found.iter("EventTypeCode")]
    assert kinds == ([kind] if kind else [])
    assert [one.get("UserIsRequestor") for one in found.iter("ActiveParticipant")] == ["true", "false"]


def test_a_message_names_the_study_the_case_and_the_reason():
    found = message("release", case_id="12-2", detail="looks right", study_uid="1.2.3.4")
    (study,) = found.iter("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == "1.2.3.4"
    assert [one.get("csd-code") for one in study.iter("ParticipantObjectIDTypeCode")] == ["110180"]
    details = {
        one.attrib["type"]: base64.b64decode(one.attrib["value"]).decode()
        for one in study.iter("ParticipantObjectDetail")
    }
    assert details == {"action": "release", "reason": "looks right"}
    assert message("login").find("ParticipantObjectIdentification") is None


def test_what_people_typed_cannot_break_the_xml():
    found = message("reject", who='"/><x>\x00', detail="\x00\ud800]]>", study_uid="1.2<")
    check(found)
    assert next(found.iter("ActiveParticipant")).get("UserID") == '"/><x>�'


def test_a_syslog_message_is_after_rfc_5424():
    line = syslog_line(b"<AuditMessage/>", AT, host="ct sim é", process=7)
    assert line == b"<85>1 2026-01-31T12:00:00.005Z ctsim syncect 7 DICOM+RFC3881 - \xef\xbb\xbf<AuditMessage/>"


def read_frame(connection: socket.socket) -> bytes:
    """One message with its count of octets before it."""
    digits = b""
    while not digits.endswith(b" "):
        digits += connection.recv(1)
    body = b""
    while len(body) < int(digits):
        body += connection.recv(int(digits) - len(body))
    return body


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def test_messages_go_over_tcp_and_again_after_the_server_closed(server):
    syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", pauses_s=(0.01,))
    syslog.offer(b"one", AT)
    with server.accept()[0] as connection:
        assert read_frame(connection).endswith(b"\xef\xbb\xbfone")
        syslog.offer(b"two", AT)
        assert read_frame(connection).endswith(b"two")
    syslog.offer(b"three", AT)
    with server.accept()[0] as connection:
        assert read_frame(connection).endswith(b"three")
    syslog.close()


def test_messages_go_over_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(10)
        receiver.bind(("127.0.0.1", 0))
        syslog = Syslog(f"udp://127.0.0.1:{receiver.getsockname()[1]}")
        syslog.offer(b"one", AT)
        assert receiver.recv(2000).startswith(b"<85>1 2026-01-31T12:00:00.005Z ")
        syslog.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([*command.split(), *map(str, files)], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_messages_go_over_tls_to_a_server_whose_certificate_is_known(server, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    syslog = Syslog(f"tls://localhost:{server.getsockname()[1]}", pauses_s=(0.01,))
    syslog.offer(b"one", AT)
    with context.wrap_socket(server.accept()[0], server_side=True) as connection:
        assert read_frame(connection).endswith(b"one")
        syslog.offer(b"two", AT)
        assert read_frame(connection).endswith(b"two")
    syslog.close()


def test_a_server_that_is_away_delays_nobody_and_what_is_lost_is_counted(server, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(audit_syslog, "WAITING", 3)
    is_there, tried = threading.Event(), threading.Event()
    connect = Syslog._connect

    def refuse(self: Syslog) -> socket.socket:
        if is_there.is_set():
            return connect(self)
        tried.set()
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(Syslog, "_connect", refuse)
    syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", pauses_s=(0.01,))
    syslog.offer(b"0", AT)
    assert tried.wait(60)
    for number in range(1, 50):
        syslog.offer(b"%d" % number, AT)
    assert syslog.lost == 46  # one is in the hand of the thread, three wait
    is_there.set()
    with server.accept()[0] as connection:
        assert [read_frame(connection)[-1:] for _ in range(3)] == [b"0", b"1", b"2"]
        syslog.close()
    assert syslog.lost == 0
    assert "cannot be reached: Connection refused" in caplog.text
    assert "46 audit messages to the syslog server were lost" in caplog.text


def test_a_node_that_ends_sends_what_waits_if_it_can(server, caplog):
    syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}")
    for number in range(20):
        syslog.offer(b"%d" % number, AT)
    syslog.close()
    with server.accept()[0] as connection:
        assert [read_frame(connection).rpartition(b"\xbf")[2] for _ in range(20)] == [b"%d" % n for n in range(20)]
    port = server.getsockname()[1]
    server.close()
    away = Syslog(f"tcp://127.0.0.1:{port}", pauses_s=(60,))
    away.offer(b"x", AT)
    away.close()
    assert "1 audit messages to the syslog server were lost" in caplog.text


def test_a_login_reaches_store_log_and_syslog(make_door, server, caplog):
    caplog.set_level(logging.INFO)
    door = make_door(audit_syslog=f"tcp://127.0.0.1:{server.getsockname()[1]}")
    browser = door.logged_in("anna", Role.PHYSICIST)
    browser.post("/press/physicist", headers={"X-CSRF-Token": browser.get("/").text})
    auditor: Auditor = door.app.state.auditor
    with server.accept()[0] as connection:
        assert b'csd-code="110114"' in read_frame(connection)
        assert b'ParticipantObjectID="1.2.3"' in read_frame(connection)
    auditor.close()
    assert "audit: login by anna from 10.0.0.7: ok" in caplog.text
    assert "audit: release by anna from 10.0.0.7 on 12: ok" in caplog.text
    assert door.node.audit.newest()[0].detail == "checked by eye"
