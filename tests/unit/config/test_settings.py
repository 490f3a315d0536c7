"""A wrong setting stops the program with one sentence that names source, key and what is allowed."""

import importlib.resources
import re
import tomllib
from typing import Any

import pytest

from config.alerting import SmtpSettings
from config.destinations import DicomwebSettings
from config.load import ConfigError, load_settings
from config.routes import RouteSettings
from config.settings import DestinationSettings, NodeSettings, RuleSettings, Settings, TlsSettings

WEB = '[[destination]]\nname = "web"\nkind = "dicomweb"\nurl = "{}"\n'
DICOMWEB = WEB.format("https://pacs.example/dicom-web")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("SYNCECT_CONFIG", "SYNCECT_WEB__ENABLED", "SYNCECT_MODEL__ALLOW_UNPROVEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[scp]\nprot = 104", "scp.prot is not a setting; allowed here: ae_title, host, port"),
        ('[alerts]\nwebhook = "ftp://h/x"', "a webhook begins with https:// or http:// and names a host"),
        ('[alerts]\nquiet = ["noise"]', "alerts.quiet.0 = 'noise' is not allowed: it should be 'store', "),
        ('[alerts.smtp]\nhost = "m"\nsender = "me"\nto = ["a@b"]', "it should be one e-mail address"),
        ('[alerts.smtp]\nhost = "m"\nsender = "a@b"\nto = []', "alerts.smtp.to = [] is not allowed"),
        (
            '[alerts.smtp]\nhost = "m"\nsender = "a@b"\nto = ["a@b"]\nusername = "u"',
            "username and password_file belong together",
        ),
        (
            '[alerts.smtp]\nhost = "m"\nsender = "a@b"\nto = ["a@b"]\nusername = "u"\npassword_file = "/p"\n'
            "starttls = false",
            "a username needs starttls = true",
        ),
        (
            '[scp]\nmax_associations = 1\nallowed_peers = [{ ae_title = "A" }, { ae_title = "B" }]',
            "max_associations must be at least the number of allowed_peers",
        ),
        ("[query]\nenabled = true\nport = 11112", "query.port and scp.port must differ"),
        ('[query]\nae_title = "A TITLE OF 17 CHA"', "an AE title has 1 to 16 printable ASCII characters"),
        ("[scp]\nport = 0", "scp.port = 0 is not allowed: it should be greater than or equal to 1"),
        (
            '[scp]\nallowed_peers = [{ ae_title = "A", certificate = "a.example" }]',
            "allowed_peers names a certificate, and without [scp.tls] no peer shows one",
        ),
        (
            '[scp]\nallowed_peers = [{ ae_title = "A", certificate = "sha256:12" }]',
            "a fingerprint is sha256: and 64 hexadecimal digits",
        ),
        ('[web]\nhost = "0.0.0.0"', "with this host passwords would cross the network in clear"),
        ('[web]\nuser_header = "X-User"', "user_header needs trusted_proxies"),
        ('[web]\nrole_header = "X-Role"', "role_header needs user_header"),
        (
            '[web]\ntrusted_proxies = ["10.0.0.1"]\nuser_header = "X-User"\nrole_header = "x-user"',
            "user_header and role_header must differ",
        ),
        ('[web]\nuser_header = "X User"', "a header's name has letters, digits and hyphens"),
        ('[web]\nuser_header = "Cookie"', "this header has another meaning"),
        ('[web]\nallowed_hosts = ["a.example:8042"]', "it is neither an IP address nor a host name"),
        ('[web]\nallowed_hosts = ["*"]', "it is neither an IP address nor a host name"),
        ('[web]\nmonitors = ["prometheus"]', "it should be an IP address or a network such as 10.1.2.0/24"),
        ('[web]\naudit_syslog = "tls://siem"', "it should be udp://host:514, tcp://host:601 or tls://host:6514"),
        ('[web]\naudit_syslog = "tls://siem:x"', "it should be udp://host:514, tcp://host:601 or tls://host:6514"),
        ('[web]\naudit_syslog = "http://siem:80"', "it should be udp://host:514"),
        ('[web]\ntls = { certificate = "c" }', "web.tls.private_key is missing and has no default"),
        ('[scp]\nforeign_instances = "drop"', "it should be 'refuse' or 'hold'"),
        ("[spc]\nport = 104", "spc is not a setting; allowed here: node, spool, scp"),
        ('[model]\ndevice = "gpu"', "model.device = 'gpu' is not allowed: it should be 'auto', 'cuda' or 'cpu'"),
        ("[model]\nblood_level_hu = 20", "blood_level_hu must be from 40 to 200, or 0 for the level"),
        ('[[destination]]\nname = "tps"', "destination.0.ae_title is missing and has no default"),
        (
            f'{DICOMWEB}confirm = "commitment"',
            "destination.0.confirm = 'commitment' is not allowed: it should be 'none'",
        ),
        (f'{DICOMWEB}ae_title = "TPS"', "destination.0.ae_title is not a setting; allowed here: name, echo_s"),
        (f'{DICOMWEB}tls = {{ crl = "a" }}', "destination.0.tls.crl is not a setting; allowed here: ca, certificate"),
        (f'{DICOMWEB}tls = {{ certificate = "a" }}', "certificate and private_key belong together"),
        (f'{DICOMWEB}username = "me"', "username and password_file belong together"),
        (f'{DICOMWEB}token_file = "t"\nusername = "me"\npassword_file = "p"', "token_file and username exclude each"),
        (WEB.format("http://pacs/dicom-web"), "with this url images would cross the network in clear"),
        (WEB.format("http://127.0.0.1/") + 'tls = { ca = "a" }', "tls belongs to an url that begins with https://"),
        (WEB.format("https://me:pw@pacs/dicom-web"), "it should be https://host/path or https://host:8443/path"),
        (WEB.format("https://pacs/rs?token=1"), "it should be https://host/path or https://host:8443/path"),
        (WEB.format("https://pacs:0/rs"), "it should be https://host/path or https://host:8443/path"),
        (WEB.format("ftp://pacs/rs"), "it should be https://host/path or https://host:8443/path"),
        (
            '[[destination]]\nkind = "http"',
            "destination.0.kind = 'http' is not allowed: it should be 'dimse' or 'dicomw",
        ),
        ("[[destination]]\nkind = []", "destination.0.kind = [] is not allowed: it should be 'dimse' or 'dicomweb'"),
        ("destination = [3]", "destination.0 = 3 is not allowed: it should be a table"),
        ('[scp]\nae_title = "SEVENTEEN LETTERS"', "an AE title has 1 to 16 printable ASCII characters"),
        ("[completion]\nquiet_s = 9\ngive_up_s = 1", "give_up_s must not be shorter than quiet_s"),
        ('[node]\ninstallation_uid_root = "1.02"', "a UID root consists of numbers and dots"),
        ("[retention]\ndays = -1", "retention.days = -1 is not allowed"),
        ("[retention]\ntarget_free_gb = 1", "target_free_gb must be more than min_free_gb"),
        (
            '[[route]]\nname = "a"\n[[route]]\nname = "a"',
            "two routes have the same name; each needs its own",
        ),
        (
            '[[route]]\nname = "a"\ncalled_ae = ["OTHER"]',
            "route a: called_ae has OTHER, which is neither scp.ae_title nor one of scp.more_ae_titles",
        ),
        (
            '[[route]]\nname = "a"\ndestinations = ["tps"]',
            "route a: 'tps' is no name of a [[destination]] that gets results (there is none), nor @sender",
        ),
        (
            '[[destination]]\nname = "qa"\nae_title = "QA"\nhost = "h"\nreceives = "constancy"\n'
            '[[route]]\nname = "a"\ndestinations = ["qa"]',
            "route a: 'qa' is no name of a [[destination]] that gets results",
        ),
        (
            '[[destination]]\nname = "one"\nae_title = "CT"\nhost = "h"\n'
            '[[destination]]\nname = "two"\nae_title = "CT"\nhost = "i"\n'
            '[[route]]\nname = "a"\ndestinations = ["@sender"]',
            "route a: @sender cannot tell apart two destinations with the AE title CT",
        ),
        ("[scp", "not valid TOML"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, sentence):
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert sentence in str(caught.value)
    for mistake in caught.value.mistakes:
        assert mistake.startswith(f"{path}: ")
        assert "\n" not in mistake


def test_all_mistakes_are_told_at_once_each_with_its_source(tmp_path, monkeypatch):
    path = tmp_path / "node.toml"
    path.write_text(
        '[scp]\nprot = 1\nport = "eleven"\nae_title = "SEVENTEEN LETTERS"\n[spc]\nport = 1\n'
        '[completion]\ncount_from = { ae_title = "PACS", hots = "pacs" }\n'
        '[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "10.1.2.300"\n'
    )
    monkeypatch.setenv("SYNCECT_MODEL__DEVICE", "gpu")
    monkeypatch.setenv("SYNCECT_MODLE__BUNDLE", "demo")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    for number, (start, end) in enumerate(
        (
            ("environment: SYNCECT_MODLE__BUNDLE sets nothing", "did you mean SYNCECT_MODEL__BUNDLE?"),
            (f"{path}: scp.ae_title = 'SEVENTEEN LETTERS' is not allowed", "(PS3.5 VR AE)"),
            (f"{path}: scp.port = 'eleven' is not allowed", "it should be a whole number"),
            (f"{path}: scp.prot is not a setting", "did you mean port?"),
            (f"{path}: completion.count_from.host is missing", "and has no default"),
            (f"{path}: completion.count_from.hots is not a setting; allowed here: ae_title", "did you mean host?"),
            ("environment SYNCECT_MODEL__DEVICE: model.device = 'gpu'", "'auto', 'cuda' or 'cpu'"),
            (f"{path}: destination.0.host = '10.1.2.300'", "neither an IP address nor a host name"),
            (f"{path}: spc is not a setting", "did you mean scp?"),
        )
    ):
        assert caught.value.mistakes[number].startswith(start)
        assert caught.value.mistakes[number].endswith(end)
    assert len(caught.value.mistakes) == number + 1
    assert str(caught.value) == "\n".join(caught.value.mistakes)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SYNCECT_DESTINATION", '[{"name": "tps"}]', "environment SYNCECT_DESTINATION: destination.0.host is missing"),
        ("SYNCECT_DESTINATION", "{", "environment SYNCECT_DESTINATION: it cannot be read"),
        ("SYNCECT_SCP", "3", "environment SYNCECT_SCP: scp = 3 is not allowed: it should be a table"),
        ("SYNCECT_SCP__PROT", "3", r"environment SYNCECT_SCP__PROT: scp.prot is not a setting.*did you mean port\?"),
    ],
)
def test_a_mistake_inside_a_variable_names_the_variable(monkeypatch, name, value, sentence):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence):
        load_settings()


def test_a_missing_file_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(ConfigError, match="syncect config init"):
        load_settings(tmp_path / "none.toml")


def test_the_environment_overrides_the_file_key_by_key(tmp_path, monkeypatch):
    path = tmp_path / "node.toml"
    path.write_text('[scp]\nport = 104\nae_title = "FILE"')
    monkeypatch.setenv("SYNCECT_SCP__PORT", "11113")
    monkeypatch.setenv("SYNCECT_DESTINATION", '[{"name": "tps", "ae_title": "TPS", "host": "h"}]')
    settings = load_settings(path)
    assert (settings.scp.port, settings.scp.ae_title) == (11113, "FILE")
    assert settings.destination[0].name == "tps"


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("SYNCECT_SCP__PORT", "99999", "environment SYNCECT_SCP__PORT: scp.port"),
        ("SYNCECT_SPC__PORT", "104", "SYNCECT_SPC__PORT sets nothing"),
        ("SYNCECT_DESTINATION", "tps", "written as JSON"),
        ("SYNCECT_SCP_PORT", "104", r"SYNCECT_SCP_PORT sets nothing;.* did you mean SYNCECT_SCP__PORT\?"),
        ("SYNCECT_MODLE__DEVICE", "cpu", r"did you mean SYNCECT_MODEL__DEVICE\?"),
    ],
)
def test_mistakes_in_the_environment(monkeypatch, variable, value, sentence):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=sentence):
        load_settings()


def test_a_certificate_is_written_as_openssl_prints_it_or_as_it_is_named():
    digits = "3F:A0:" * 15 + "3F:A0"
    tls = {"certificate": "a", "private_key": "b", "ca": "c"}
    peers = [{"ae_title": "A", "certificate": f"SHA256:{digits}"}, {"ae_title": "B", "certificate": "CT1.Hospital"}]
    scp = Settings.model_validate({"scp": {"tls": tls, "allowed_peers": peers}}).scp
    assert [peer.certificate for peer in scp.allowed_peers] == ["sha256:" + "3fa0" * 16, "ct1.hospital"]


def test_a_destination_is_of_the_kind_that_it_names_and_of_dimse_without_one():
    """In clear only to this machine, or where somebody wrote that down."""
    tps = {"name": "tps", "ae_title": "TPS", "host": "h"}
    urls = ("https://pacs.example/dicom-web/", "http://[::1]:8042/rs", "http://localhost", "https://10.1.2.3:8443/a/b")
    web = [{"name": f"w{n}", "kind": "dicomweb", "url": url} for n, url in enumerate(urls)]
    clear = {"name": "clear", "kind": "dicomweb", "url": "http://pacs/rs", "allow_http": True}
    settings = Settings.model_validate({"destination": [tps, *web, clear]})
    assert [one.name for one in settings.dimse_destinations] == ["tps"]
    assert [(one.host, one.port) for one in settings.destination[1:]] == [
        *(("pacs.example", 443), ("::1", 8042), ("localhost", 80), ("10.1.2.3", 8443), ("pacs", 80)),
    ]
    assert settings.model_dump()["destination"][1]["url"] == "https://pacs.example/dicom-web"
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


def test_a_relative_data_dir_belongs_to_the_folder_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "node.toml"
    path.write_text('[node]\ndata_dir = "data"')
    monkeypatch.chdir("/")
    assert load_settings(path).node.data_dir == tmp_path / "data"


def test_the_default_file_states_every_key_at_its_default(tmp_path):
    text = importlib.resources.files("config").joinpath("default.toml").read_text()
    path = tmp_path / "default.toml"
    path.write_text(text)
    loaded = load_settings(path)
    assert loaded.model_copy(update={"node": NodeSettings()}) == Settings()
    assert tomllib.loads(text)["scp"]["port"] == 11112


def test_the_default_file_names_every_key_and_says_what_it_is_for():
    text = importlib.resources.files("config").joinpath("default.toml").read_text()
    sections: dict[str, Any] = {name: type(field.default) for name, field in Settings.model_fields.items()}
    sections |= {"destination": DestinationSettings, "eligibility.rules": RuleSettings, "scp.tls": TlsSettings}
    sections |= {"alerts.smtp": SmtpSettings, "route": RouteSettings}
    for name, section in [*sections.items(), ("destination", DicomwebSettings)]:
        own = re.split(rf"^(?:# )?\[+{name}\]+", text, maxsplit=1, flags=re.MULTILINE)[1].split("\n[")[0]
        for key in section.model_fields:
            assert re.search(rf"^(# )?{key} = |\[{name}\.{key}\]", own, re.MULTILINE), f"{name}.{key} is not there"
    unexplained = [line for line in text.splitlines() if re.match(r"[a-z_]+ = [^#]*$", line)]
    assert unexplained == []


@pytest.mark.parametrize(
    "text",
    [
        'host = "0.0.0.0"\ntls = { certificate = "c", private_key = "k" }',
        'host = "10.1.2.3"\ntrusted_proxies = ["10.1.2.0/24"]\nuser_header = "X-Forwarded-User"',
        'host = "::1"',
        'host = "0.0.0.0"\nenabled = false',
        'audit_syslog = "tls://[fd00::1]:6514"\nallowed_hosts = ["Syncect.Hospital.example"]',
    ],
)
def test_a_page_that_sends_no_password_in_clear_is_taken(text, tmp_path):
    path = tmp_path / "n.toml"
    path.write_text(f"[web]\n{text}\n")
    assert load_settings(path).web.allowed_hosts in ((), ("syncect.hospital.example",))


def test_a_mistake_in_what_may_hold_a_password_does_not_quote_it(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text(
        '[alerts]\nwebhook = "htps://me:hushhush@chat/hooks"\n[node]\ndatabase_url = ["me:hushhush@h"]\n'
        + WEB.format("https://me:hushhush@pacs/rs")
    )
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert len(caught.value.mistakes) == 3
    assert "hushhush" not in str(caught.value)


def test_queries_keep_a_title_of_their_own():
    settings = Settings.model_validate({"scp": {"more_ae_titles": ["SYNCECT_NECK"]}, "query": {"ae_title": "FINDER"}})
    assert settings.scp.ae_titles == ("SYNCECT", "SYNCECT_NECK")
    assert settings.query_scp.ae_titles == ("FINDER",)
