"""`config validate` looks at what the settings mean on this machine, tells everything at once, and changes nothing."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import ScpSettings, Settings
from models.testing import write_tiny_bundle
from node.ops.certificates import check_tls, validity
from node.ops.checks import check_callers, check_hosts, check_port, check_reports
from node.ops.processes import process_lock
from tests.conftest import require_program
from tests.peers.certificates import Certificates, make_certificates

Run = Callable[..., tuple[int, str, str]]
TPS = {"name": "tps", "ae_title": "TPS", "host": "127.0.0.1", "port": 104}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"), require_program("openssl"))


@pytest.fixture
def validate(run: Run, tmp_path: Path, monkeypatch) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Validates a settings file; returns exit code, mistakes and warnings."""
    monkeypatch.delenv("SYNCECT_CONFIG", raising=False)

    def call(text: str, **environment: str) -> tuple[int, list[str], list[str]]:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        path = tmp_path / "validated.toml"
        path.write_text(text)
        code, out, _ = run("--config", str(path), "config", "validate", "--json")
        answer = json.loads(out)
        assert answer["valid"] is not answer["mistakes"]
        return code, answer["mistakes"], answer["warnings"]

    return call


@pytest.fixture
def listening() -> Iterator[int]:
    """A port of this machine on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def texts(settings: dict[str, object]) -> list[str]:
    return [finding.text for finding in check_hosts(Settings.model_validate(settings))]


def test_everything_that_is_wrong_is_told_at_once(validate, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    code, mistakes, _ = validate(
        '[node]\ndata_dir = "/proc/nowhere"\ndatabase_url = "postgresql+psycopg://me:secret@127.0.0.1:1/db"\n'
        '[scp]\nhost = "192.0.2.1"\ntls = { certificate = "none.pem", private_key = "none.key", ca = "/" }\n'
        '[completion]\ncount_from = "pacs"\n'
        '[model]\nbundle = "nothing"\n'
        '[[eligibility.rules]]\nkeyword = "BodyPart"\nop = "is"\nreason = "r"\n'
        '[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "no-such-host.invalid"\n'
    )
    wanted = [
        "node.data_dir = '/proc/nowhere' cannot be written",
        "the store postgresql+psycopg://me:***@127.0.0.1:1/db cannot be read: ",
        "destination.0.host = 'no-such-host.invalid' cannot be looked up: ",
        "completion.count_from = 'pacs' names no destination that is asked by C-FIND; there are tps",
        "scp.host = '192.0.2.1', scp.port = 11112: this machine has no such address",
        "scp.tls.certificate = 'none.pem' cannot be read: No such file or directory",
        "scp.tls.private_key = 'none.key' cannot be read: No such file or directory",
        "scp.tls.ca = '/' cannot be read: Is a directory",
        "eligibility.rules.0 cannot be used: ",
        "model.bundle = 'nothing' cannot be used: ",
    ]
    assert [text[: len(start)] for text, start in zip(mistakes, wanted, strict=True)] == wanted
    assert code == 2
    assert "secret" not in "".join(mistakes)
    assert set(tmp_path.iterdir()) - before == {tmp_path / "validated.toml"}


def test_mistakes_of_spelling_are_told_by_the_same_command(validate) -> None:
    code, mistakes, _ = validate("[scp]\nprot = 1\nport = 0\n")
    assert (code, len(mistakes)) == (2, 2)


def test_the_defaults_are_valid(validate) -> None:
    assert validate("")[:2] == (0, [])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgres://h/db", "it begins with postgres; write"),
        ("postgresql://h/db", "it begins with postgresql; write"),
        ("postgresql+psycopg://h:port/db", "it is no URL of a database; write"),
        ("nonsense", "it is no URL of a database; write"),
        ("sqlite:////proc/nowhere/s.sqlite3", None),
    ],
)
def test_a_wrong_url_is_told_without_its_password(validate, run: Run, monkeypatch, url: str, why: str | None) -> None:
    _, mistakes, _ = validate(f'[node]\ndatabase_url = "{url}"\n')
    if why is None:  # a file that is not there yet
        return
    assert why in mistakes[0]
    monkeypatch.setenv("SYNCECT_NODE__DATABASE_URL", url)
    for command in (("jobs", "ls"), ("config", "show"), ("db", "current")):
        code, _, err = run(*command)
        assert (code, why in err.replace("\n", " ")) == (2, True)


# -- hosts and ports -------------------------------------------------------------------------------------------


def test_a_destination_that_is_the_node_itself(listening: int) -> None:
    own = TPS | {"port": 11112}
    for scp in ({}, {"host": "127.0.0.1"}, {"host": "localhost"}):
        (text,) = texts({"scp": scp, "destination": [own]})
        assert text.startswith("destination.0 (tps) is this node itself: 127.0.0.1:11112")
    assert texts({"scp": {"host": "127.0.0.2"}, "destination": [own]}) == []
    assert texts({"destination": [own | {"host": "192.0.2.1"}, TPS | {"name": "plan"}]}) == []


def test_one_peer_under_two_names() -> None:
    (text,) = texts({"destination": [TPS, TPS | {"name": "plan", "host": "localhost"}]})
    assert text == "the destinations tps, plan are one peer: it gets every series 2 times"
    assert texts({"destination": [TPS, TPS | {"name": "plan", "ae_title": "PLAN"}]}) == []


def test_names_are_looked_up_and_networks_are_not() -> None:
    peers = [{"ae_title": "A", "host": "10.1.2.0/24"}, {"ae_title": "B", "host": "no-such.invalid"}, {"ae_title": "C"}]
    asked = {"ae_title": "PACS", "host": "pacs.invalid"}
    found = texts({"scp": {"allowed_peers": peers}, "completion": {"count_from": asked}})
    assert [text.split(" = ")[0] for text in found] == ["scp.allowed_peers.1.host", "completion.count_from.host"]
    assert texts({"destination": [TPS], "completion": {"count_from": "tps"}}) == []


def test_the_port_of_another_program_is_told_and_that_of_the_node_is_not(listening: int, tmp_path: Path) -> None:
    scp = ScpSettings(host="127.0.0.1", port=listening)
    (finding,) = check_port(scp, tmp_path)
    assert (finding.is_mistake, "another program listens there" in finding.text) == (False, True)
    with process_lock(tmp_path, "receive", "1"):
        assert list(check_port(scp, tmp_path)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
def test_a_port_that_this_user_may_not_take_is_a_warning(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if limit <= 1:
        pytest.skip("every user may listen on every port here")
    os.seteuid(65534)
    try:
        (finding,) = check_port(ScpSettings(host="127.0.0.1", port=1), tmp_path)
    finally:
        os.seteuid(0)
    assert (finding.is_mistake, "may not listen" in finding.text) == (False, True)


# -- who may send ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scp", "words"),
    [
        ({}, "the receiver listens on 127.0.0.1 and not on scp.host = '0.0.0.0', so only programs of this machine"),
        ({"host": "::"}, "the receiver listens on ::1 and not on scp.host = '::'"),
        ({"host": "10.1.2.3"}, "the receiver listens on 127.0.0.1 and not on scp.host = '10.1.2.3'"),
        ({"host": "127.0.0.1"}, None),
        ({"host": "::1"}, None),
        ({"host": "localhost"}, None),
        ({"allowed_peers": [{"ae_title": "CTSIM"}]}, None),
        ({"allow_everyone": True}, "every program that reaches the port may send, under any AE title"),
    ],
)
def test_who_may_send_is_told_where_nobody_was_named(scp: dict[str, object], words: str | None) -> None:
    found = list(check_callers(ScpSettings.model_validate(scp)))
    assert len(found) == (words is not None)
    assert all(words is not None and words in finding.text for finding in found)
    assert not any(finding.is_mistake for finding in found)


@pytest.mark.parametrize(
    ("host", "confirm", "scp", "count"),
    [
        ("10.1.2.4", "commitment", {}, 1),
        ("10.1.2.4", "find", {}, 0),
        ("127.0.0.1", "commitment", {}, 0),
        ("10.1.2.4", "commitment", {"allowed_peers": [{"ae_title": "CTSIM"}]}, 0),
    ],
)
def test_a_destination_that_cannot_report_is_told(host: str, confirm: str, scp: dict[str, object], count: int) -> None:
    pacs = {"name": "pacs", "ae_title": "PACS", "host": host, "confirm": confirm}
    found = list(check_reports(Settings.model_validate({"scp": scp, "destination": [pacs]})))
    assert len(found) == count
    assert all("destination.0 (pacs) cannot report on storage commitment" in one.text for one in found)


def test_titles_without_a_certificate_of_their_own_are_told(certificates: Certificates) -> None:
    bound, unbound = {"ae_title": "A", "certificate": "a.example"}, {"ae_title": "B"}
    tls = certificates.settings()
    assert list(check_callers(ScpSettings.model_validate({"tls": tls, "allowed_peers": [bound]}))) == []
    (found,) = check_callers(ScpSettings.model_validate({"tls": tls, "allowed_peers": [bound, unbound]}))
    assert "whoever has a certificate that the CA signed may call itself B; `certificate`" in found.text
    (found,) = check_callers(ScpSettings.model_validate({"tls": tls, "host": "127.0.0.1"}))
    assert "may call itself every AE title" in found.text


# -- TLS -------------------------------------------------------------------------------------------------------


def test_certificates_are_judged_by_their_dates(certificates: Certificates) -> None:
    tls, (begins, ends) = certificates.settings(), validity(certificates.settings().certificate)[0]
    assert ends - begins == timedelta(days=2)
    assert abs(begins - datetime.now(UTC)) < timedelta(minutes=10)
    for now, words, is_mistake in (
        (begins - timedelta(days=1), "is not valid before", True),
        (begins + timedelta(hours=1), "expires on", False),
        (ends + timedelta(days=1), "has expired on", True),
    ):
        own, issuer = check_tls("scp.tls", tls, now)
        assert own.text.startswith("scp.tls.certificate = ")
        assert issuer.text.startswith("scp.tls.ca = ")
        assert words in own.text
        assert (own.is_mistake, issuer.is_mistake) == (is_mistake, is_mistake)


def test_a_key_that_does_not_fit_and_one_with_a_password(certificates: Certificates, tmp_path: Path) -> None:
    tls = certificates.settings()
    now = datetime.now(UTC)
    foreign = tls.model_copy(update={"private_key": certificates.settings("stranger").private_key})
    assert "the key does not belong to the certificate" in next(check_tls("scp.tls", foreign, now)).text
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", str(tls.private_key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    encrypted = tls.model_copy(update={"private_key": locked})
    assert "the key is encrypted" in next(check_tls("scp.tls", encrypted, now)).text
    locked.write_text("no key")
    assert "one of them is no PEM file" in next(check_tls("scp.tls", encrypted, now)).text


# -- bundle ----------------------------------------------------------------------------------------------------


def test_a_bundle_that_nobody_measured_is_a_warning(validate, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    code, mistakes, warnings = validate(f'[model]\nbundle = "{tmp_path / "tiny"}"\ndevice = "cpu"\n')
    assert (code, mistakes) == (0, [])
    assert "nobody measured whether it is better than no change at all" in warnings[0]


def test_a_bundle_that_nobody_measured_is_a_mistake_where_it_is_not_allowed_by_name(validate, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    code, mistakes, _ = validate(
        f'[model]\nbundle = "{tmp_path / "tiny"}"\ndevice = "cpu"\n', SYNCECT_MODEL__ALLOW_UNPROVEN="[]"
    )
    assert code != 0
    assert " is refused: nobody measured" in mistakes[0]


def test_a_damaged_bundle_and_a_device_that_is_not_there(validate, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _, mistakes, _ = validate('[model]\ndevice = "cuda"\n')
    assert mistakes == [
        "model.device = 'cuda' cannot be used: device is set to cuda, but torch finds no usable GPU on this machine"
    ]
    write_tiny_bundle(tmp_path / "tiny")
    (tmp_path / "tiny" / "weights.safetensors").write_bytes(b"damaged")
    _, mistakes, _ = validate(f'[model]\nbundle = "{tmp_path / "tiny"}"\n')
    assert "do not use it" in mistakes[0]


def test_the_bundle_of_the_shadow_is_checked_as_well(validate, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    model = f'[model]\nbundle = "{tmp_path / "tiny"}"\ndevice = "cpu"\nshadow = '
    assert validate(f'{model}"demo"\n')[1] == []
    assert "neither a folder with bundle.json nor shipped" in validate(f'{model}"synddiff"\n')[1][0]
    shutil.copytree(tmp_path / "tiny", tmp_path / "copy")
    (same,) = validate(f'{model}"{tmp_path / "copy"}"\n')[1]
    assert same.endswith("is the bundle of model.bundle; a shadow compares another one with it")
    (tmp_path / "copy" / "weights.safetensors").write_bytes(b"damaged")
    (damaged,) = validate(f'{model}"{tmp_path / "copy"}"\n')[1]
    assert damaged.startswith("model.shadow = ")
    assert "do not use it" in damaged
