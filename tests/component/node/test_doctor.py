"""`doctor` names what is wrong, each with its remedy, whatever is broken, in less than ten seconds."""

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pynetdicom import AE

from config.load import load_settings
from node.bootstrap.roles import make_receiver
from node.bootstrap.store import open_store
from node.network.tls import server_context
from node.operate.doctor import model
from node.operate.doctor.report import Check, Line, Mark
from node.operate.doctor.run import examine
from node.operate.doctor.table import CHECKS
from node.ops.clock import seconds_since_boot, this_boot
from node.ops.health import ROLES
from node.ops.processes import process_lock
from storage.mark import note_move
from storage.roles import Role
from storage.states import Stage
from tests.conftest import require_program
from tests.peers.certificates import make_certificates

CT, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1"
REMEDIES = {Mark.WARN, Mark.FAIL}


@pytest.fixture(autouse=True)
def without_device(monkeypatch):
    """torch takes seconds to load: only the test of the device asks it."""
    monkeypatch.setattr("node.operate.doctor.run.CHECKS", [one for one in CHECKS if one.name != "device"])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"), require_program("openssl"))


def look(run, *options) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit code, and the lines by check."""
    code, out, _ = run("doctor", "--json", *options)
    lines: dict[str, list[dict[str, str]]] = {}
    for line in json.loads(out)["checks"]:
        assert set(line) == {"check", "state", "found", "remedy"}
        assert line["remedy"] or line["state"] not in REMEDIES, line
        lines.setdefault(line["check"], []).append(line)
    return code, lines


def states(lines, check) -> set[str]:
    return {line["state"] for line in lines[check]}


def found(lines, check) -> str:
    return " | ".join(line["found"] for line in lines[check])


@pytest.fixture
def all_running(config):
    """Every role of the node holds its lock, as if it ran."""
    with ExitStack() as running:
        for role in ROLES:
            running.enter_context(process_lock(config.parent / "syncect-data" / "run", role, "1"))
        yield


def test_a_node_that_does_not_run_is_down_and_every_line_has_its_remedy(run, config):
    with open_store(load_settings(config)):
        pass
    code, lines = look(run)
    assert code == 2
    assert states(lines, "processes") == {"FAIL"}
    assert "the receiver" in found(lines, "processes")
    assert states(lines, "database") == {"OK"}
    assert "sound" in found(lines, "database")
    assert "connection refused" in found(lines, "destination tps")
    assert states(lines, "own AE title") == {"SKIP"}


def test_a_running_node_with_a_peer_that_is_off_is_degraded(run, config, all_running):
    code, out, _ = run("doctor")
    assert code == 1
    assert out.startswith("DEGRADED: ")
    assert "settings: 0 mistakes, " in out
    assert "FAIL  destination tps: " in out


def test_nothing_is_written(run, config):
    with open_store(load_settings(config)):
        pass
    folder = config.parent / "syncect-data"

    def everything() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (folder, *folder.rglob("*"))}

    before = everything()
    look(run)
    assert everything() == before


def test_a_broken_settings_file_is_named_and_the_rest_skipped(run, config):
    config.write_text("[scp]\nprot = 1")
    code, lines = look(run)
    assert code == 2
    assert "prot is not a setting" in found(lines, "settings")
    assert states(lines, "database") == {"SKIP"}


def test_a_damaged_database_and_a_missing_one_are_lines_of_the_report(run, config, monkeypatch):
    (config.parent / "syncect-data" / "syncect.sqlite3").write_bytes(b"no database at all" * 1000)
    code, lines = look(run)
    assert code == 2
    assert states(lines, "database") == {"FAIL"}
    assert states(lines, "spool") == {"SKIP"}
    assert "OK" in states(lines, "disk")
    monkeypatch.setenv("SYNCECT_NODE__DATABASE_URL", "postgresql+psycopg://me:secret@127.0.0.1:1/db")
    code, lines = look(run)
    assert code == 2
    assert states(lines, "database") == {"FAIL"}
    assert "secret" not in json.dumps(lines)


def test_a_full_disk_and_too_few_inodes_are_told(run, config, monkeypatch):
    monkeypatch.setenv("SYNCECT_RETENTION__MIN_FREE_GB", "1e9")
    _, lines = look(run)
    assert states(lines, "disk") == {"FAIL"}
    monkeypatch.setattr("node.operate.doctor.machine._FEW_INODES", 10**18)
    _, lines = look(run)
    assert "inodes left" in found(lines, "disk")


def test_a_file_that_is_gone_is_found_by_the_quick_look(run, config, department):
    department.held()
    for file in (config.parent / "syncect-data" / "spool" / "derived").rglob("*.dcm"):
        file.unlink()
    _, lines = look(run)
    assert states(lines, "spool") == {"FAIL"}
    assert "spool verify" in lines["spool"][0]["remedy"]


def test_a_database_without_its_spool_and_a_spool_without_its_database_are_told(run, config, department):
    department.sent()
    data = config.parent / "syncect-data"
    (data / "spool").rename(data / "unmounted")
    _, lines = look(run)
    assert "is its disk mounted?" in found(lines, "database")
    assert "FAIL" in states(lines, "database")
    (data / "unmounted").rename(data / "spool")
    (data / "spool" / "received" / "20260131").mkdir(parents=True, exist_ok=True)
    (data / "spool" / "received" / "20260131" / "1.dcm").touch()
    department.node.database.close()
    (data / "syncect.sqlite3").rename(data / "gone")
    _, lines = look(run)
    assert states(lines, "database") == {"FAIL"}
    assert "Put back the database" in found(lines, "database")


def test_another_program_at_the_receivers_port_is_named(run, config, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("SYNCECT_SCP__PORT", str(taken.getsockname()[1]))
        _, lines = look(run)
    assert states(lines, "receiver port") == {"FAIL"}
    assert f"pid {os.getpid()}" in found(lines, "receiver port")


def test_another_program_at_the_port_of_queries_is_named(run, config, monkeypatch):
    monkeypatch.setenv("SYNCECT_QUERY__ENABLED", "true")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("SYNCECT_QUERY__PORT", str(taken.getsockname()[1]))
        _, lines = look(run)
    assert states(lines, "query port") == {"FAIL"}
    assert f"pid {os.getpid()}" in found(lines, "query port")


def test_a_key_that_others_can_read_and_days_left_are_told(run, config, certificates, monkeypatch):
    tls = certificates.settings().model_dump_json()
    monkeypatch.setenv("SYNCECT_SCP__TLS", tls)
    certificates.settings().private_key.chmod(0o644)
    _, lines = look(run)
    assert "mode 644" in found(lines, "certificates")
    assert "chmod 600" in json.dumps(lines["certificates"])
    assert "expires on" in found(lines, "certificates")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize(
    ("owner", "mode", "is_told"), [(0, 0o640, False), (0, 0o660, True), (0, 0o604, True), (65534, 0o640, True)]
)
def test_a_key_of_root_may_be_read_by_the_group_of_the_node(
    run, config, certificates, monkeypatch, owner, mode, is_told
):
    tls = certificates.settings()
    monkeypatch.setenv("SYNCECT_SCP__TLS", tls.model_dump_json())
    os.chown(tls.private_key, owner, 0)
    tls.private_key.chmod(mode)
    _, lines = look(run)
    assert (f"mode {mode:o}" in found(lines, "certificates")) is is_told


@contextmanager
def peer(*classes: str, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A peer that takes these SOP classes in one transfer syntax; yields its port."""
    ae = AE("TPS")
    for one in classes:
        ae.add_supported_context(one, "1.2.840.10008.1.2.1")
    server = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=tls)
    assert server is not None
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def test_a_destination_tells_syntaxes_and_latency(run, config):
    with peer(CT, VERIFICATION) as port:
        config.write_text(config.read_text().replace("port = 1\n", f"port = {port}\n"))
        _, lines = look(run)
    assert states(lines, "destination tps") == {"OK"}
    assert "Explicit VR Little Endian" in found(lines, "destination tps")
    assert "Implicit" not in found(lines, "destination tps")
    assert "ms" in found(lines, "destination tps")


@pytest.mark.parametrize("tls", [False, True])
def test_the_own_receiver_is_asked_under_a_title_that_it_allows(run, config, certificates, monkeypatch, tls):
    if tls:
        monkeypatch.setenv("SYNCECT_SCP__TLS", certificates.settings().model_dump_json())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config.write_text(
        config.read_text()
        + f'[scp]\nport = {port}\nhost = "127.0.0.1"\nallowed_peers = [{{ ae_title = "CT1", host = "127.0.0.1" }}]\n'
    )
    with open_store(load_settings(config)) as node, process_lock(node.run_dir, "receive", "1"):
        receiver = make_receiver(node)
        receiver.start()
        try:
            _, lines = look(run)
        finally:
            receiver.stop()
    assert states(lines, "own AE title") == {"OK"}
    assert f"answers CT1{' by TLS' if tls else ''} in " in found(lines, "own AE title")
    assert states(lines, "receiver port") == {"OK"}


def test_a_process_of_an_earlier_version_is_told(run, config, all_running, monkeypatch):
    later = datetime(2999, 1, 1, tzinfo=UTC)
    monkeypatch.setattr("node.operate.doctor.processes._installed_at", lambda: later)
    _, lines = look(run)
    assert "before this version was installed" in found(lines, "processes")


def test_files_from_the_future_and_a_jump_of_the_clock_are_told(run, config):
    data = config.parent / "syncect-data"
    (data / "spool" / "received" / "20990101").mkdir(parents=True)
    file = data / "spool" / "received" / "20990101" / "1.dcm"
    file.touch()
    os.utime(file, (time.time() + 3600, time.time() + 3600))
    (data / "run").mkdir(exist_ok=True)
    known = {"boot_id": this_boot(), "difference_s": time.time() - seconds_since_boot() - 600}
    (data / "run" / "clock.json").write_text(json.dumps(known))
    _, lines = look(run)
    assert "newer than now" in found(lines, "clock")
    assert "set forward by 600 s" in found(lines, "clock")


def test_a_check_that_hangs_or_fails_ends_no_report(config, monkeypatch):
    released = threading.Event()

    def hangs(_settings):
        released.wait(5)
        yield Line("hangs", Mark.OK, "late")

    def fails(_settings):
        yield Line("fails", Mark.OK, "first")
        raise ZeroDivisionError

    rows = (Check("hangs", hangs, limit_s=0.1), Check("fails", fails), Check("good", lambda _s: iter(())))
    monkeypatch.setattr("node.operate.doctor.run.CHECKS", rows)
    try:
        _, lines = examine(config)
    finally:
        released.set()
    told = {(line.check, line.state) for line in lines}
    assert {("hangs", Mark.WARN), ("fails", Mark.OK), ("fails", Mark.WARN)} <= told


def test_peers_that_do_not_answer_cost_less_than_ten_seconds(run, config):
    """Two listeners that accept and say nothing, one after the other would take ten seconds and more."""
    with ExitStack() as opened:
        blocks = []
        for number in range(3):
            silent = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = silent.getsockname()[1]
            blocks.append(f'[[destination]]\nname = "p{number}"\nae_title = "P"\nhost = "127.0.0.1"\nport = {port}\n')
        config.write_text("".join(blocks))
        began_s = time.monotonic()
        _, lines = look(run)
    assert time.monotonic() - began_s < 10
    assert all(states(lines, f"destination p{number}") == {"FAIL"} for number in range(3))


def test_the_certificate_of_a_destination_is_looked_at(run, config, certificates):
    tls = certificates.settings()
    context = server_context(tls)
    table = ", ".join(f'{key} = "{value}"' for key, value in tls.model_dump(exclude_none=True).items())
    with peer(CT, VERIFICATION, tls=context) as port:
        config.write_text(config.read_text().replace("port = 1\n", f"port = {port}\ntls = {{ {table} }}\n"))
        _, lines = look(run)
    assert states(lines, "destination tps") == {"OK", "WARN"}
    assert "its certificate expires in" in found(lines, "destination tps")


@pytest.mark.parametrize(("offered", "state"), [("1.2.840.10008.5.1.4.1.2.2.1", "OK"), (CT, "FAIL")])
def test_the_peer_that_counts_is_asked_whether_it_takes_questions(run, config, offered, state):
    with peer(offered) as port:
        text = config.read_text().replace("port = 1\n", f"port = {port}\n")
        config.write_text(f'[completion]\ncount_from = "tps"\n{text}')
        _, lines = look(run)
    assert states(lines, "count_from") == {state}


@pytest.mark.parametrize(("questions", "marks"), [(("1.2.840.10008.5.1.4.1.2.2.1",), {"OK"}), ((), {"OK", "FAIL"})])
def test_a_destination_that_is_asked_whose_a_series_is_must_take_questions(run, config, questions, marks):
    with peer(CT, VERIFICATION, *questions) as port:
        config.write_text(config.read_text().replace("port = 1\n", f"port = {port}\nidentity_check = true\n"))
        _, lines = look(run)
    assert states(lines, "destination tps") == marks
    assert ("identity_check: takes queries" in found(lines, "destination tps")) is bool(questions)


def test_a_caller_whose_name_has_no_address_is_told(run, config):
    config.write_text('[scp]\nallowed_peers = [{ ae_title = "CT1", host = "no-such-host.invalid" }]\n')
    _, lines = look(run)
    assert states(lines, "callers") == {"FAIL"}
    assert "no-such-host.invalid cannot be looked up" in found(lines, "callers")


def test_a_page_to_which_nobody_can_log_in_and_one_that_does_not_answer_are_told(run, config, monkeypatch, department):
    monkeypatch.setenv("SYNCECT_WEB__ENABLED", "true")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        monkeypatch.setenv("SYNCECT_WEB__PORT", str(probe.getsockname()[1]))
    with process_lock(department.node.run_dir, "web", "1"):
        _, lines = look(run)
    assert states(lines, "page users") == {"WARN"}
    assert states(lines, "page") == {"FAIL"}
    department.node.users.add("anna", "", Role.ADMIN, "secret", datetime.now(UTC))
    _, lines = look(run)
    assert found(lines, "page users") == "1 may log in"
    assert "does not run" in found(lines, "page")


def test_what_a_person_paused_is_told_with_the_command_that_ends_it(run, config, department):
    assert found(look(run)[1], "pauses") == "nothing is paused"
    department.node.pauses.pause([Stage.SEND], "", "anna", "the TPS is updated", datetime.now(UTC))
    (line,) = look(run)[1]["pauses"]
    assert (line["state"], line["remedy"]) == ("WARN", "`syncect queue resume --stage send`")
    assert line["found"].startswith("sending is paused on all hosts by anna since ")


def test_a_store_that_was_moved_is_told_with_the_two_ways_out(run, config, department):
    with department.node.database.write() as session:
        note_move(session, "2.25.1", "postgresql+psycopg://db/syncect", datetime.now(UTC))
    lines = look(run)[1]
    (line,) = [one for one in lines["database"] if one["state"] == "FAIL"]
    assert "was moved to postgresql+psycopg://db/syncect" in line["found"]
    assert "node.database_url" in line["remedy"]
    assert "db adopt" in line["remedy"]
    assert [one["state"] for one in lines["spool"]] == ["SKIP"]


def test_the_device_is_seen_by_a_process_of_its_own(config):
    lines = list(model.device(load_settings(config)))
    assert [line.check for line in lines] == ["device"]
    assert "torch " in lines[0].found


def test_starting_the_command_line_loads_nothing_of_the_doctor():
    program = "import sys, node.cli.commands; print([m for m in sys.modules if m.startswith('node.operate.doctor')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
