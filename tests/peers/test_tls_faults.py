"""What is said, on both sides, of an association that fails by TLS: one sentence, and the right one."""

import logging
import socket
import ssl
import warnings
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import build_context

from config.settings import TlsSettings
from node.network.no_association import NoAssociation, Outcome
from node.network.requestor import Timeouts, associate
from node.network.tls import UnusableCertificate, client_context, server_context
from node.ops.certificates import check_tls, validity
from node.ops.findings import Finding
from node.send.scu import StorageScu
from tests.peers.certificates import Certificates, make_faulty_certificates
from tests.peers.measures import wait_until

VERIFICATION = "1.2.840.10008.1.1"
QUICK = Timeouts(connection_s=2, acse_s=2, dimse_s=2)
OURS = "it does not accept our certificate"
ITS = "its certificate is not accepted"


@pytest.fixture(scope="session")
def faulty(certificates: Certificates) -> Certificates:
    make_faulty_certificates(certificates, "/usr/bin/openssl")
    return certificates


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """Wait for the receiver's line about a connection, and return it."""
    caplog.set_level(logging.WARNING)

    def wait() -> str:
        def lines() -> list[str]:
            return [one.getMessage() for one in caplog.records if "ended before an association" in one.getMessage()]

        wait_until(lambda: bool(lines()))
        return lines()[0]

    return wait


# What the receiver has, and what the sender; a list of the receiver or of the sender; the lines of both.
CASES = {
    "the sender's authority is unknown": (
        "node",
        "stranger",
        "",
        "",
        f"{ITS}: it is not signed",
        f"{OURS}: it does not trust",
    ),
    "the sender's certificate has expired": ("node", "expired", "", "", f"{ITS}: it has expired", f"{OURS}: it, or"),
    "the sender's is not valid yet": ("node", "early", "", "", f"{ITS}: it is not valid yet", f"{OURS}: does it name"),
    "the sender's is revoked": ("node", "revoked", "ca.crl", "", f"{ITS}: it is revoked", f"{OURS}: it is revoked"),
    "the receiver's list has expired": (
        "node",
        "node",
        "over.crl",
        "",
        f"{ITS}: the revocation list of our crl has expired",
        OURS,
    ),
    "the receiver's list is of another": (
        "node",
        "node",
        "stranger.crl",
        "",
        f"{ITS}: the revocation list of our crl is of",
        OURS,
    ),
    "the receiver's authority is unknown": (
        "stranger",
        "node",
        "",
        "",
        f"{OURS}: it does not trust",
        f"{ITS}: it is not signed",
    ),
    "the receiver's certificate has expired": ("expired", "node", "", "", f"{OURS}: it, or", f"{ITS}: it has expired"),
    "the receiver's is not valid yet": (
        "early",
        "node",
        "",
        "",
        f"{OURS}: does it name",
        f"{ITS}: it is not valid yet",
    ),
    "the receiver's is revoked": ("revoked", "node", "", "ca.crl", f"{OURS}: it is revoked", f"{ITS}: it is revoked"),
    "the receiver's is of another host": (
        "elsewhere",
        "node",
        "",
        "",
        f"{OURS}: does it name",
        f"{ITS}: it does not name the host",
    ),
    "the sender speaks plain DICOM": ("node", None, "", "", "it does not speak TLS", "it speaks TLS on this port"),
    "the receiver speaks plain DICOM": (
        None,
        "node",
        "",
        "",
        "it speaks TLS, and [scp.tls] is not set",
        "TLS: it does not speak TLS",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_has_one_clear_line_on_both_sides(
    start_receiver: Any, make_tps: Any, faulty: Certificates, told: Any, case: str
) -> None:
    receives, sends, receiver_crl, sender_crl, receiver_says, sender_says = CASES[case]

    def settings(owner: str | None, crl: str) -> TlsSettings | None:
        return faulty.settings(owner, crl=faulty.folder / crl if crl else None) if owner else None

    receiver = start_receiver(tls=settings(receives, receiver_crl))
    destination = make_tps(running=False).destination(
        port=receiver.port, ae_title="SYNCECT", tls=settings(sends, sender_crl)
    )
    answer = StorageScu(destination, "SYNCECT", QUICK).echo()
    assert not answer.ok
    assert sender_says in answer.detail
    assert receiver_says in told()


def test_a_peer_that_is_on_no_list_is_taken(start_receiver: Any, make_tps: Any, faulty: Certificates) -> None:
    tls = faulty.settings(crl=faulty.folder / "ca.crl")
    receiver = start_receiver(tls=tls)
    destination = make_tps(running=False).destination(port=receiver.port, ae_title="SYNCECT", tls=tls)
    assert StorageScu(destination, "SYNCECT", QUICK).echo().ok


@pytest.mark.parametrize(
    ("version", "line"),
    [(None, "TLS: it shows no certificate"), (ssl.TLSVersion.TLSv1_1, "TLS: it speaks no version of TLS from 1.2 on")],
)
def test_a_client_without_a_certificate_or_with_tls_1_1(
    start_receiver: Any, certificates: Certificates, told: Any, version: ssl.TLSVersion | None, line: str
) -> None:
    receiver = start_receiver(tls=certificates.settings())
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=5) as plain:
        with suppress(OSError):
            anonymous(version).wrap_socket(plain).recv(1)
        assert line in told()


def anonymous(version: ssl.TLSVersion | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context if version is None else only(context, version)


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def test_a_peer_that_has_only_tls_1_1(make_tps: Any, certificates: Certificates) -> None:
    tps = make_tps(tls=only(server_context(certificates.settings()), ssl.TLSVersion.TLSv1_1))
    answer = StorageScu(tps.destination(tls=certificates.settings()), "SYNCECT", QUICK).echo()
    assert "TLS: it speaks no version of TLS from 1.2 on" in answer.detail


def test_what_tls_cannot_mend_by_itself_is_tried_slowly(make_tps: Any, certificates: Certificates) -> None:
    """With TLS 1.3 a peer refuses our certificate only when the handshake is over for us."""
    tps = make_tps(tls=server_context(certificates.settings(ca="stranger-ca")))
    with (
        pytest.raises(NoAssociation) as refused,
        associate(tps.destination(tls=certificates.settings()), "SYNCECT", [build_context(VERIFICATION)], QUICK),
    ):
        pass
    assert refused.value.outcome is Outcome.MISCONFIGURED
    assert f"ended the connection: TLS: {OURS}: it does not trust the authority" in refused.value.reason


@pytest.mark.parametrize(
    ("crl", "why"),
    [("absent.crl", "cannot be read"), ("ca.pem", "it holds no X509 CRL"), ("both.crl", "it holds certificates")],
)
def test_a_list_that_cannot_be_used_is_named(faulty: Certificates, tmp_path: Path, crl: str, why: str) -> None:
    both = (faulty.folder / "ca.crl").read_text() + (faulty.folder / "stranger-ca.pem").read_text()
    (faulty.folder / "both.crl").write_text(both)
    with pytest.raises(UnusableCertificate, match=why):
        server_context(faulty.settings(crl=faulty.folder / crl))


@pytest.mark.parametrize(("profile", "suites"), [("bcp195-rfc8996", 4), ("bcp195-rfc8996-modified", 10)])
def test_a_profile_has_its_suites_and_no_other(certificates: Certificates, profile: str, suites: int) -> None:
    for context in (server_context, client_context):
        made = context(certificates.settings(profile=profile))
        old = [one["name"] for one in made.get_ciphers() if one["protocol"] != "TLSv1.3"]
        assert len(old) == suites
        assert all(name.startswith("ECDHE-") and ("GCM" in name or "CCM" in name or "CHACHA" in name) for name in old)
        assert made.security_level == 2


def test_a_list_is_told_of_before_it_ends_and_when_it_has(faulty: Certificates) -> None:
    tls = faulty.settings(crl=faulty.folder / "ca.crl")
    ((begins, ends),) = validity(faulty.folder / "ca.crl")
    assert ends - begins == timedelta(days=2)

    def lists(now: datetime) -> list[Finding]:
        return [one for one in check_tls("scp.tls", tls, now) if one.text.startswith("scp.tls.crl = ")]

    assert lists(ends - timedelta(hours=13)) == []
    (soon,), (over,) = lists(ends - timedelta(hours=11)), lists(ends)
    assert "expires on" in soon.text
    assert not soon.is_mistake
    assert over.text.endswith("until it is renewed every peer is turned away")
    assert over.is_mistake
