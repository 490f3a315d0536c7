"""What an operator sees of a destination that is reached by DICOMweb, before the first patient."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Settings
from node.bootstrap.backup import not_included
from node.network.tls import server_context
from node.operate.doctor.peers import destination_checks
from node.ops.certificates import certificate_files
from node.ops.checks import check_dicomweb, check_hosts
from tests.conftest import require_program
from tests.peers.certificates import Certificates, make_certificates
from tests.peers.dicomweb_server import DicomwebServer, Told


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), require_program("openssl"))


@pytest.fixture
def server(certificates: Certificates) -> Iterator[DicomwebServer]:
    running = DicomwebServer(server_context(certificates.settings()))
    yield running
    running.stop()


def settings_of(*destinations: dict[str, object], **others: object) -> Settings:
    known = {"name": "web", "kind": "dicomweb", "url": "https://127.0.0.1/rs"}
    return Settings.model_validate({"destination": [known | one for one in destinations], **others})


def test_peers_and_doctor_ask_it_and_say_what_is_wrong(
    run, config: Path, server: DicomwebServer, certificates: Certificates
) -> None:
    certificate, key, ca = certificates.files("other")
    tls = f'{{ ca = "{ca}", certificate = "{certificate}", private_key = "{key}" }}'
    url = f"https://127.0.0.1:{server.port}/rs"
    with config.open("a") as file:
        file.write(f'[[destination]]\nname = "web"\nkind = "dicomweb"\nurl = "{url}"\ntls = {tls}\n')
    listed = run("peers", "ls")[1]
    assert [line.split() for line in listed.splitlines() if "web" in line] == [
        ["sends", "to", "web", "DICOMweb", url, "TLS"]
    ]
    code, out, _ = run("peers", "echo", "web", "--json")
    assert (code, json.loads(out)["web"]["detail"]) == (0, "answers a query by QIDO-RS")

    def looked_at() -> list[str]:
        settings = settings_of({"url": url, "tls": {"ca": ca, "certificate": certificate, "private_key": key}})
        (check,) = destination_checks(settings)
        return [f"{line.state} {line.found}" for line in check.look(settings)]

    good, ends = looked_at()
    assert good.startswith(f"OK {url} answers a query by QIDO-RS, ")
    assert ends == "WARN its certificate expires in 1 days"
    server.on_search = lambda asked: Told(403)
    assert looked_at() == [f"FAIL {url} answers 403: may this node store and search there?"]
    assert run("peers", "echo", "web")[0] == 5


def test_what_it_lacks_is_told_before_the_start(
    run, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (token := tmp_path / "token").write_text("two words\n")
    token.chmod(0o600)
    settings = settings_of({"token_file": token}, {"name": "b", "username": "me", "password_file": tmp_path / "none"})
    assert [one.text for one in check_dicomweb(settings)] == [
        f"destination.0 (web): {token} holds no bearer token (RFC 6750) in its first line",
        f"destination.1 (b): {tmp_path / 'none'} cannot be read: No such file or directory",
    ]
    token.chmod(0o604)
    assert "other users of this machine can read" in next(check_dicomweb(settings)).text
    monkeypatch.setattr("node.ops.checks.find_spec", lambda name: None)
    needs = 'kind = "dicomweb" needs the extra package syncect[dicomweb], which is not installed'
    assert next(check_dicomweb(settings)).text == f"destination.0 (web): {needs}"
    with config.open("a") as file:
        file.write('[[destination]]\nname = "web"\nkind = "dicomweb"\nurl = "https://127.0.0.1/rs"\n')
    assert run("deliver") == (2, "", f"syncect: destination web: {needs}\n")


def test_its_host_and_its_files_count_as_those_of_other_destinations(certificates: Certificates) -> None:
    certificate, key, ca = certificates.files()
    settings = settings_of(
        {"token_file": "/etc/syncect/token", "tls": {"ca": ca}},
        {"name": "b", "tls": {"certificate": certificate, "private_key": key}},
        {"name": "c", "url": "https://127.0.0.1/other"},
        {"name": "d", "url": "https://no-such-host.invalid"},
        completion={"count_from": "web"},
    )
    beginnings = (
        "destination.3.url = 'no-such-host.invalid' cannot be looked up: ",
        "the destinations web, b are one peer: ",
        "completion.count_from = 'web' names no destination that is asked by C-FIND; there are none, ",
    )
    for found, beginning in zip(check_hosts(settings), beginnings, strict=True):
        assert found.text.startswith(beginning)
    assert list(certificate_files(settings)) == [
        ("destination.0.tls", "ca", ca),
        ("destination.1.tls", "certificate", certificate),
    ]
    left_out = list(not_included(settings))
    assert f"certificates and private key of destination web: tls: {ca}" in left_out
    assert "token or password file of destination web: /etc/syncect/token" in left_out
