"""Certificates that are renewed while associations run: none fails, and the new one is shown."""

import logging
import ssl
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from config.settings import TlsSettings, WebTlsSettings
from node.network.renewal import page_tls, receiver_tls
from node.network.requestor import Timeouts
from node.network.tls import UnusableCertificate
from node.send.scu import StorageScu
from tests.peers.certificates import Certificates

PATIENT = Timeouts(connection_s=10, acse_s=10, dimse_s=10)
SENDERS, RENEWALS = 3, 6


def shown(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=5).strip()


class Sender(threading.Thread):
    """Sends C-ECHO after C-ECHO, each in an association of its own, until it is told to stop."""

    def __init__(self, destination: Any, turned: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self._scu, self._turned = StorageScu(destination, "SYNCECT", PATIENT), turned
        self.done, self.failures = threading.Event(), []  # type: ignore[var-annotated]

    def run(self) -> None:
        while not self.done.is_set():
            answer = self._scu.echo()
            if not answer.ok:
                self.failures.append(answer.detail)
            self._turned.release()


def test_no_association_fails_while_both_sides_renew_their_certificates(
    start_receiver: Any, make_tps: Any, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    tls = certificates.copied_to(tmp_path / "own")
    receiver = start_receiver(tls=tls)
    destination = make_tps(running=False).destination(port=receiver.port, ae_title="SYNCECT", tls=tls)
    turned = threading.Semaphore(0)
    senders = [Sender(destination, turned) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    for _ in range(2 * SENDERS):  # a process that starts between the two files has no former pair
        assert turned.acquire(timeout=20)
    seen = [shown(receiver.port)]
    for number in range(RENEWALS):
        owner = ("renewed", "node")[number % 2]
        for name in ("private_key", "certificate"):  # between the two no pair fits
            certificates.replace(tls, name, owner)
            for _ in range(2 * SENDERS):
                assert turned.acquire(timeout=20)
        seen.append(shown(receiver.port))
    for sender in senders:
        sender.done.set()
    for sender in senders:
        sender.join(20)
    assert [sender.failures for sender in senders] == [[]] * SENDERS
    pair = [certificates.settings(owner).certificate.read_text().strip() for owner in ("node", "renewed")]
    assert seen == [pair[number % 2] for number in range(RENEWALS + 1)]


@pytest.fixture
def own(certificates: Certificates, tmp_path: Path) -> TlsSettings:
    (tmp_path / "own").mkdir()
    return certificates.copied_to(tmp_path / "own")


def test_files_that_cannot_be_used_are_told_once_and_the_former_stay(
    own: TlsSettings, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    renewed = receiver_tls(own)
    first = renewed()
    certificates.replace(own, "private_key", "renewed")
    assert [renewed(), renewed()] == [first, first]
    (line,) = (one.getMessage() for one in caplog.records)
    assert line.startswith("scp.tls: changed files cannot be used, the former ones stay in use: certificate ")
    assert line.endswith("the key does not belong to the certificate")
    own.ca.rename(own.ca.with_suffix(".away"))
    assert renewed() is first
    own.ca.with_suffix(".away").rename(own.ca)
    certificates.replace(own, "certificate", "renewed")
    assert renewed() is not first
    assert renewed() is renewed()
    assert caplog.records[-1].getMessage() == "scp.tls: the changed files are in use"


def test_without_former_files_there_is_no_start(own: TlsSettings, certificates: Certificates) -> None:
    certificates.replace(own, "private_key", "renewed")
    with pytest.raises(UnusableCertificate):
        receiver_tls(own)


def test_the_page_shows_a_renewed_certificate(own: TlsSettings, certificates: Certificates) -> None:
    context = page_tls(WebTlsSettings(certificate=own.certificate, private_key=own.private_key))
    before = seen_in_memory(context, own.ca)
    for name in ("private_key", "certificate"):
        certificates.replace(own, name, "renewed")
    after = seen_in_memory(context, own.ca)
    owners = [certificates.settings(owner).certificate.read_text() for owner in ("node", "renewed")]
    assert [before, after] == [ssl.PEM_cert_to_DER_cert(text) for text in owners]


def seen_in_memory(context: ssl.SSLContext, ca: Path) -> bytes | None:
    """The certificate that a browser sees; the page's server shakes hands in memory, too."""
    browser = ssl.create_default_context(cafile=ca)
    to_server, to_browser = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        browser.wrap_bio(to_browser, to_server, server_hostname="127.0.0.1"),
        context.wrap_bio(to_server, to_browser, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].getpeercert(binary_form=True)
