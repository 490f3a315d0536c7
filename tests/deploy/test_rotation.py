"""The runbook's renewal of a certificate, done to a receiver that is being sent to: no image is lost."""

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import make_series
from tests.conftest import require_program
from tests.deploy.kit import DEPLOY, RECEIVER_ALONE
from tests.slice.harness import RunningNode, dcmtk, wait_for


def certify(folder: Path, *names: str) -> None:
    subprocess.run([DEPLOY / "certificates.sh", folder, *names], check=True, capture_output=True)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a CA, and the certificates of the node and of a scanner."""
    require_program("openssl")
    certify(tmp_path / "tls", "node=127.0.0.1", "ctsim1=127.0.0.1")
    return tmp_path / "tls"


@pytest.fixture
def receiver(tmp_path: Path, tiny_bundle: Path, certificates: Path) -> Iterator[RunningNode]:
    files = "\n".join(
        f'{key} = "{certificates / name}"'
        for key, name in (("certificate", "node.pem"), ("private_key", "node.key"), ("ca", "ca.pem"))
    )
    node = RunningNode(tmp_path / "node", tiny_bundle, [], scp=f"[scp.tls]\n{files}")
    process = subprocess.Popen([sys.executable, "-c", RECEIVER_ALONE, str(node.config)], stderr=subprocess.DEVNULL)
    yield node
    process.terminate()
    assert process.wait(60) == 0


class Scanner(threading.Thread):
    """Sends one image after the other and repeats each until it is answered, as a scanner's queue does."""

    def __init__(self, node: RunningNode, certificates: Path, images: list[Path]) -> None:
        super().__init__(name="scanner")
        files = [certificates / name for name in ("ctsim1.key", "ctsim1.pem")]
        self._command = [dcmtk("storescu"), "+tls", *map(str, files), "+cf", str(certificates / "ca.pem")]
        self._where = ["-aet", "CTSIM1", "-aec", "SYNCECT", "127.0.0.1", str(node.port)]
        self._images = images
        self.answered, self.repeated = 0, 0

    def run(self) -> None:
        for image in self._images:
            while subprocess.run(
                [*self._command, *self._where, str(image)], capture_output=True, check=False
            ).returncode:
                self.repeated += 1
            self.answered += 1


def shown(node: RunningNode, certificates: Path) -> str:
    """The certificate that the receiver shows to the scanner; "" while nothing answers."""
    try:
        return ssl.get_server_certificate(("127.0.0.1", node.port), timeout=5).strip()
    except OSError:
        return ""


def test_a_renewed_certificate_is_shown_without_a_restart_and_no_image_is_lost(
    tmp_path: Path, certificates: Path, receiver: RunningNode
) -> None:
    images = make_series(tmp_path / "images", slices=24)
    wait_for("the receiver's start", lambda: shown(receiver, certificates))
    old = shown(receiver, certificates)
    scanner = Scanner(receiver, certificates, images)
    scanner.start()
    wait_for("the first images", lambda: scanner.answered >= 3)

    certify(certificates, "node=127.0.0.1")
    new = (certificates / "node.pem").read_text().strip()
    assert new != old
    assert shown(receiver, certificates) == new
    scanner.join(90)
    assert not scanner.is_alive()
    assert scanner.repeated == 0
    (case,) = receiver.cases()
    assert case.slices.received == len(images)
    assert len(list((receiver.data_dir / "spool/received").rglob("*.dcm"))) == len(images)
