"""The compose file: contained services that wait for each other, no secret in clear, and files beside it that agree."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.load import load_settings
from config.settings import Settings
from node.ops.supervisor import GRACE_S
from tests.conftest import require_program
from tests.deploy.kit import DEPLOY, documents, read, unknown_variables

(COMPOSE,) = documents("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.fixture
def settings() -> Settings:
    return load_settings(DEPLOY / "compose/node.toml")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_contained_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["mem_limit"]
    assert service["cpus"]
    assert "healthcheck" in service or "build" in service  # ours has its own


def test_services_wait_for_those_that_they_need() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert waits["syncect"] == {"database": {"condition": "service_healthy"}, "tps": {"condition": "service_healthy"}}
    for needed in waits.values():
        for name, how in needed.items():
            assert how["condition"] == "service_started" or "healthcheck" in SERVICES[name]


def test_no_secret_stands_in_clear() -> None:
    for service in SERVICES.values():
        for key in service.get("environment", {}):
            assert "PASSWORD" not in key or key.endswith("_FILE")
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert load_settings(DEPLOY / "compose/node.toml").node.database_url.count(":") == 1  # of the scheme
    assert "/deploy/compose/secrets/" in (DEPLOY.parent / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_script_makes_every_secret_once(tmp_path: Path) -> None:
    require_program("openssl")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    made = tmp_path / "deploy/compose/secrets"

    def run() -> str:
        subprocess.run([tmp_path / "deploy/compose/secrets.sh"], check=True, capture_output=True)
        return (made / "pgpass").read_text()

    first = run()
    assert run() == first  # a second run must not lock the node out of its database
    for secret in COMPOSE["secrets"].values():
        assert (tmp_path / "deploy" / secret["file"]).is_file()
    assert first == f"database:5432:syncect:syncect:{(made / 'database-password').read_text().strip()}\n"
    for name in ("pgpass", "page.key", "database-password"):
        assert (made / name).stat().st_mode & 0o777 == 0o600, name


def test_every_mounted_file_and_volume_is_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_the_settings_agree_with_the_services(settings: Settings) -> None:
    (tps,) = settings.dimse_destinations
    orthanc = json.loads(read("compose/orthanc.json"))
    assert (tps.host, tps.port, tps.ae_title) == ("tps", orthanc["DicomPort"], orthanc["DicomAet"])
    assert orthanc["DicomModalities"]["syncect"] == [settings.scp.ae_title, "syncect", settings.scp.port]
    node = SERVICES["syncect"]
    assert node["ports"] == [f"{port}:{port}" for port in (settings.scp.port, settings.web.port)]
    assert (settings.scp.port, settings.web.port) == (Settings().scp.port, Settings().web.port)
    (scrape,) = yaml.safe_load(read("compose/prometheus.yml"))["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"syncect:{settings.web.port}"]}]
    assert "syncect" in settings.web.allowed_hosts
    assert settings.web.tls is not None
    assert {str(settings.web.tls.certificate), str(settings.web.tls.private_key)} <= {
        f"/run/secrets/{name}" for name in node["secrets"]
    }
    assert str(settings.node.data_dir) in [volume.split(":")[1] for volume in node["volumes"]]
    assert float(node["stop_grace_period"].removesuffix("s")) > GRACE_S + 5
    assert unknown_variables(read("compose.yaml")) <= {"SYNCECT_IMAGE_TAG"}


def test_prometheus_takes_its_files(tmp_path: Path) -> None:
    promtool = require_program("promtool")
    text = read("compose/prometheus.yml").replace("/etc/prometheus/rules.yml", str(DEPLOY / "prometheus/rules.yml"))
    (tmp_path / "ca.pem").touch()
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/secrets/ca.pem", str(tmp_path / "ca.pem")))
    answer = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_compose_takes_the_file() -> None:
    command = ["docker", "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    if shutil.which("docker") is None or subprocess.run(command[:2], capture_output=True, check=False).returncode:
        pytest.skip("Docker's compose plugin is not installed")
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
