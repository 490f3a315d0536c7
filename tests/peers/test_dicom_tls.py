"""TLS on both edges, against OpenSSL's own tools and DCMTK: strangers and downgrades stay outside."""

import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from config.settings import TlsSettings
from node.network import server
from node.network.no_association import Outcome
from node.network.requestor import Timeouts, associate
from node.network.tls import UnusableCertificate, client_context, server_context
from node.send.scu import StorageScu, contexts_for
from tests.peers.certificates import Certificates
from tests.peers.measures import wait_until

QUICK = Timeouts(connection_s=2, acse_s=2, dimse_s=2)


def echo(make_tps: Any, port: int, tls: TlsSettings | None) -> Any:
    destination = make_tps(running=False).destination(port=port, ae_title="SYNCECT", tls=tls)
    return StorageScu(destination, "SYNCECT", QUICK).echo()


def test_both_edges_speak_tls_with_each_other(start_receiver: Any, make_tps: Any, certificates: Certificates) -> None:
    receiver = start_receiver(tls=certificates.settings())
    assert echo(make_tps, receiver.port, certificates.settings()).ok


def test_a_series_goes_out_over_tls(
    start_receiver: Any, store: Any, make_tps: Any, certificates: Certificates, make_ct: Any, tmp_path: Path
) -> None:
    """With pixels enough that an instance takes many TLS records, and without a wait for acknowledgements."""
    receiver = start_receiver(tls=certificates.settings())
    destination = make_tps(running=False).destination(
        port=receiver.port, ae_title="SYNCECT", tls=certificates.settings()
    )
    items = []
    for number in range(3):
        ds = make_ct(instance=number, Rows=512, Columns=512, PixelData=bytes([number]) * (2 * 512 * 512))
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
        items.append((ds.SOPInstanceUID, tmp_path / f"{number}.dcm"))
    report = StorageScu(destination, "SYNCECT", QUICK).send(items)
    assert (report.outcome, report.accepted) == (Outcome.DONE, tuple(uid for uid, _ in items))
    assert sorted(len(path.read_bytes()) for path in store.received()) > [2 * 512 * 512] * 3
    with associate(destination, "SYNCECT", contexts_for(), QUICK) as association:
        connection = association.dul.socket and association.dul.socket.socket
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_dcmtk_speaks_tls_with_the_receiver(
    start_receiver: Any, store: Any, certificates: Certificates, peer_program: Any, make_ct: Any, tmp_path: Path
) -> None:
    receiver = start_receiver(tls=certificates.settings())
    certificate, key, ca = map(str, certificates.files())
    ds = make_ct()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    where = ["-aec", "SYNCECT", "127.0.0.1", str(receiver.port)]
    program = peer_program("/usr/bin/storescu")
    subprocess.run(
        [program, "+tls", key, certificate, "+cf", ca, *where, str(tmp_path / "ct.dcm")], check=True, timeout=20
    )
    assert len(store.instances()) == 1
    anonymous = subprocess.run([program, "+tla", "-ic", *where, str(tmp_path / "ct.dcm")], timeout=60, check=False)
    assert anonymous.returncode != 0


def test_the_courier_speaks_tls_with_dcmtk(
    certificates: Certificates, make_tps: Any, peer_program: Any, make_ct: Any, free_port: int, tmp_path: Path
) -> None:
    certificate, key, ca = map(str, certificates.files())
    ds = make_ct()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    (tmp_path / "taken").mkdir()
    destination = make_tps(running=False).destination(port=free_port, ae_title="TPS", tls=certificates.settings())
    program = [peer_program("/usr/bin/storescp"), "+tls", key, certificate, "+cf", ca, "-od", str(tmp_path / "taken")]
    with subprocess.Popen([*program, str(free_port)], stderr=subprocess.DEVNULL) as storescp:
        try:
            wait_until(lambda: can_connect(free_port))
            report = StorageScu(destination, "SYNCECT", QUICK).send([(ds.SOPInstanceUID, tmp_path / "ct.dcm")])
            version = spoken(destination)
        finally:
            storescp.terminate()
    assert report.outcome is Outcome.DONE
    assert len(list((tmp_path / "taken").iterdir())) == 1
    assert version in ("TLSv1.2", "TLSv1.3")


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def spoken(destination: Any) -> str | None:
    with associate(destination, "SYNCECT", contexts_for(), QUICK) as association:
        connection = association.dul.socket and association.dul.socket.socket
        assert isinstance(connection, ssl.SSLSocket)
        return connection.version()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_receiver_speaks_both_versions(
    start_receiver: Any, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    receiver = start_receiver(tls=certificates.settings())
    context = client_context(certificates.settings())
    context.minimum_version = context.maximum_version = version
    assert can_shake_hands(context, receiver.port)


@pytest.mark.parametrize("owner", ["stranger", None])
def test_the_receiver_turns_strangers_away(
    start_receiver: Any, make_tps: Any, certificates: Certificates, owner: str | None
) -> None:
    receiver = start_receiver(tls=certificates.settings())
    assert not echo(make_tps, receiver.port, certificates.settings(owner) if owner else None).ok


def test_the_courier_does_not_send_to_a_stranger(make_tps: Any, certificates: Certificates) -> None:
    tps = make_tps(tls=server_context(certificates.settings("stranger", ca="stranger-ca")))
    result = StorageScu(tps.destination(tls=certificates.settings()), "SYNCECT", QUICK).echo()
    assert not result.ok
    assert "certificate is not accepted" in result.detail
    assert tps.associations == 0


def test_old_protocols_and_suites_are_refused(start_receiver: Any, certificates: Certificates) -> None:
    receiver = start_receiver(tls=certificates.settings())
    context = client_context(certificates.settings())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for suite, welcome in (("ECDHE-ECDSA-AES128-GCM-SHA256", True), ("ECDHE-ECDSA-AES128-SHA256", False)):
        context.set_ciphers(suite)
        assert can_shake_hands(context, receiver.port) is welcome


def can_shake_hands(context: ssl.SSLContext, port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            context.wrap_socket(plain, server_hostname="127.0.0.1").close()
    except OSError:
        return False
    return True


def test_a_handshake_that_never_comes_blocks_nobody(
    start_receiver: Any, make_tps: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock: one silent TCP client stops every TLS association."""
    monkeypatch.setattr(server, "ACSE_TIMEOUT_S", 1.0)
    receiver = start_receiver(tls=certificates.settings())
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=5) as silent:
        begun = time.perf_counter()
        assert echo(make_tps, receiver.port, certificates.settings()).ok
        assert time.perf_counter() - begun < 1
        assert silent.recv(1) == b""


@pytest.mark.parametrize("broken", ["certificate", "private_key", "ca"])
def test_unusable_files_are_named(certificates: Certificates, broken: str) -> None:
    files = certificates.settings().model_copy(update={broken: certificates.folder / "absent.pem"})
    for build in (server_context, client_context):
        with pytest.raises(UnusableCertificate, match=r"absent\.pem"):
            build(files)
