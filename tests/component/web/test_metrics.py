"""What a monitoring system sees of a node: every metric that dashboard and rules name, and nothing of a patient."""

import json
import re
import shutil
import subprocess
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from config.load import load_settings
from node.beats import Heart, Numbers
from node.bootstrap.store import open_store
from node.ops.health import ROLES
from node.ops.processes import process_lock
from node.web.app import make_app
from storage.errors import StoreUnavailable
from storage.gauges import Gauges
from storage.overview import Overview
from tests.conftest import require_program
from tests.departments import Department
from tests.peers.certificates import make_certificates
from tests.unit.node.cli.test_documents import KNOWN

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
CANARY: dict[str, Any] = {"patient": "CANARY-ID-77", "description": "CANARY^NAME chest"}
COUNTED = {
    "serve": ["ends:work"],
    "receive": ["stores:0000", "stores:C000", "store_bytes", "store_s:0.05", "store_s_sum"],
    "work": ["slices", "translation_s", "slice_s", "device_used_bytes", "device_bytes"],
    "deliver": ["sent:tps", "send_s:tps", "failures:tps", "failures:1.2.840.99"],
}


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """The lines of the settings that name certificates."""
    made = make_certificates(tmp_path_factory.mktemp("tls"), require_program("openssl")).settings()
    return "".join(f'{key} = "{path}"\n' for key, path in made if path is not None)


@pytest.fixture(scope="module")
def node(tmp_path_factory, _migrated_sqlite, tls):
    """An open node with one destination, and series of a patient with a conspicuous name in many states."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "data").mkdir(mode=0o700)
    shutil.copy(_migrated_sqlite, folder / "data" / "syncect.sqlite3")
    config = folder / "node.toml"
    config.write_text(
        f'[node]\ndata_dir = "{folder / "data"}"\n[scp]\nport = 1\n'
        f'[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "127.0.0.1"\nport = 1\n[destination.tls]\n{tls}'
    )
    with open_store(load_settings(config)) as node:
        department = Department(node)
        for make in (department.sent, department.sending, department.failed, department.held, department.incomplete):
            make(**CANARY)
        department.arrive(ae="CANARY", **CANARY)
        node.peers.answered("tps", datetime.now(UTC))
        node.peers.failed("CANARY", "CANARY", datetime.now(UTC))
        yield node


@pytest.fixture
def running(node):
    """Every role of the node holds its lock and has counted something."""
    with ExitStack() as held:
        for role in ("serve", *ROLES):
            sign, numbers = held.enter_context(process_lock(node.run_dir, role, "1")), Numbers()
            sign.numbers = numbers.all
            for name in COUNTED.get(role, ()):
                numbers.add(name, 2)
            Heart(sign.beats).beat("", "working", 0, 0, 600.0)
        yield node


@pytest.fixture
def ask(node):
    with TestClient(make_app(node), base_url="http://127.0.0.1:8042", client=("127.0.0.1", 1)) as client:
        yield lambda path, accept="*/*": client.get(path, headers={"Accept": accept})


def samples(answer):
    assert answer.status_code == 200
    return [sample for family in parse_text(answer.text) for sample in family.samples]


def value(answer, name, **labels):
    (found,) = [one.value for one in samples(answer) if one.name == name and one.labels == labels]
    return found


def expressions():
    dashboard = json.loads((DEPLOY / "grafana" / "syncect.json").read_text())
    rules = yaml.safe_load(RULES.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return found + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_a_spool_whose_disk_is_not_mounted_is_down_as_status_says(running, ask):
    assert ask("/readyz").status_code == 200
    root = running.spool.root
    root.rename(root.with_name("unmounted"))
    answer = ask("/readyz")
    assert answer.status_code == 503
    assert "is its disk mounted?" in answer.text
    assert value(ask("/metrics"), "syncect_store_up") == 0
    root.with_name("unmounted").rename(root)
    assert ask("/readyz").status_code == 200


def test_every_metric_of_dashboard_and_rules_exists_in_a_scrape(running, ask):
    there = {sample.name for sample in samples(ask("/metrics"))}
    named = {name for text in expressions() for name in re.findall(r"syncect_\w+", text)}
    assert len(named) >= 25
    assert named <= there


def test_promtool_accepts_rules_dashboard_and_scrape(running, ask, tmp_path):
    promtool = require_program("promtool")
    plain = [text.replace("$__rate_interval", "5m").replace("$instance", ".*") for text in expressions()]
    rules = [{"record": f"syncect:expression:{number}", "expr": text} for number, text in enumerate(plain)]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool, "check", "rules", RULES, tmp_path / "dashboard.yml"], check=True)
    scrape = ask("/metrics").text
    checked = subprocess.run([promtool, "check", "metrics"], input=scrape, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_rule_says_what_is_wrong_and_what_to_type():
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"].endswith(".")
            typed = rule["annotations"]["next"]
            command = max((one for one in KNOWN if f"{typed} ".startswith(f"{one} ")), key=len)
            assert command != "syncect", typed
            assert set(re.findall(r"(?<= )--?[a-z]+", typed)) <= KNOWN[command]


def test_a_scrape_is_read_in_both_formats_and_each_metric_is_explained(running, ask):
    text = ask("/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    open_metrics = ask("/metrics", "application/openmetrics-text; version=1.0.0")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    plain, other = list(parse_text(text.text)), list(parse_openmetrics(open_metrics.text))
    assert {one.name for one in plain} >= {one.name for one in other} - {"syncect_build"}
    assert all(one.documentation.endswith((".", ").")) for one in plain)


def test_a_scrape_shows_the_numbers_of_the_processes(running, ask):
    answer = ask("/metrics")
    assert value(answer, "syncect_cstore_answers_total", status="C000") == 2
    assert value(answer, "syncect_cstore_answers_total", status="A700") == 0
    assert value(answer, "syncect_cstore_duration_seconds_bucket", le="0.05") == 2
    assert value(answer, "syncect_cstore_duration_seconds_count") == 2
    assert value(answer, "syncect_send_failures_total", destination="tps", process="1") == 2
    assert value(answer, "syncect_process_ends_total", role="work") == 2
    assert value(answer, "syncect_process_up", role="receive") == 1
    assert value(answer, "syncect_health", state="degraded") == 1
    assert value(answer, "syncect_cases", state="HELD") == 1
    assert value(answer, "syncect_deliveries", destination="tps", state="PENDING") == 1


def test_no_label_holds_a_patient_a_uid_or_what_a_peer_says(running, ask):
    text = ask("/metrics").text + ask("/readyz").text
    assert "CANARY" not in text
    assert "1.2.840" not in text
    assert {one.labels.get("destination", "tps") for one in samples(ask("/metrics"))} == {"tps"}


def test_a_node_without_processes_is_not_ready_and_says_why(ask):
    assert ask("/healthz").status_code == 200
    answer = ask("/readyz")
    assert answer.status_code == 503
    assert "the receiver does not run" in answer.text
    told = ask("/readyz", "application/json").json()
    assert told["state"] == "down"
    assert "the receiver does not run" in told["reasons"]
    assert value(ask("/metrics"), "syncect_process_up", role="receive") == 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_stranger_is_told_nothing(node, path):
    with TestClient(make_app(node), base_url="http://127.0.0.1:8042", client=("10.0.0.9", 1)) as client:
        answer = client.get(path, follow_redirects=False)
        assert answer.status_code in (303, 401)
        assert "syncect_" not in answer.text


def test_a_degraded_node_is_ready_with_its_reasons(running, ask):
    answer = ask("/readyz")
    assert answer.status_code == 200
    assert answer.text.startswith("DEGRADED: ")


def test_a_node_that_refuses_every_image_is_not_ready(running, ask, monkeypatch):
    monkeypatch.setattr("storage.spool.Spool.free_bytes", lambda _spool: 0)
    answer = ask("/readyz")
    assert answer.status_code == 503
    assert "every C-STORE is refused" in answer.text


def test_a_store_that_cannot_be_read_is_said_and_hides_no_process(running, ask, monkeypatch):
    def gone(_self):
        raise StoreUnavailable("the database cannot be opened")

    monkeypatch.setattr(Gauges, "oldest", gone)
    monkeypatch.setattr(Overview, "counts", gone)
    answer = ask("/readyz")
    assert (answer.status_code, answer.text) == (503, "DOWN: the database cannot be opened\n")
    answer = ask("/metrics")
    assert value(answer, "syncect_store_up") == 0
    assert value(answer, "syncect_process_up", role="receive") == 1
