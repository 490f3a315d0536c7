"""Every role of `syncect serve` while PostgreSQL restarts, refuses or only reads: nothing is lost and nobody ends."""

import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine

from node.ops.processes import running_processes
from storage.database import Database
from tests.conftest import PostgresCluster
from tests.slice import harness
from tests.slice.harness import RunningNode, free_port, wait_for
from tests.torture.ledger import Ledger, judge, unsettled
from tests.torture.scans import Scanner, make_scan
from tests.torture.tps import Tps

ROLES = {"serve", "receive", "complete", "work", "deliver", "watch", "query", "web"}
REFUSED = 0xA700  # out of resources: the scanner tries again
SOON_S = 6.0
TELL_EVERY_S = 2.0
# Short pauses, so that everything goes on soon; a line every two seconds, so that three of them are seen soon.
LIMITS = f"""
import node.ops.reporting as reporting, storage.outage as outage
outage.PAUSES_S, outage.TELL_EVERY_S, reporting.REPORT_EVERY_S = (0.2, 0.5), {TELL_EVERY_S}, 1.0
"""


class Site:
    """A node on a server of its own, with a scanner, a TPS and a page."""

    def __init__(self, folder: Path, bundle: Path, cluster: PostgresCluster) -> None:
        self.cluster, self.ledger, self.page = cluster, Ledger(), free_port()
        self.tps = Tps(self.ledger).start()
        self._admin = create_engine(cluster.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self.sql("CREATE ROLE node LOGIN PASSWORD 'first'", "CREATE DATABASE site OWNER node")
        cluster.ask_for_passwords("node")
        trusted = 'trusted_proxies = ["127.0.0.1"]\nuser_header = "X-User"\nrole_header = "X-Role"'
        self.node = RunningNode(
            folder / "node",
            bundle,
            [self.tps],
            database_url=cluster.url("site", "node:first"),
            completion="quiet_s = 0.5\ngive_up_s = 300.0",
            web=f"port = {self.page}\n{trusted}\n[query]\nenabled = true\nport = {free_port()}",
            extra='outside_envelope = "warn"',
        )
        self.database = Database(self.node.url, read_only=True)
        self._scans = folder / "scans"
        self._scanners: list[Scanner] = []

    def sql(self, *statements: str) -> None:
        """As the server's administrator."""
        with self._admin.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def cut(self) -> None:
        """End every connection of the node."""
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'node'")

    def push(self) -> Scanner:
        """A scanner sends a new series until every instance is answered with 0x0000."""
        number = len(self._scanners)
        self._scanners.append(Scanner(self.node.port, make_scan(self._scans / str(number), f"s{number}"), self.ledger))
        return self._scanners[-1]

    def ask(self, path: str) -> tuple[int, str]:
        """Status and text of a page, as somebody sees it who has logged in."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.page}{path}", headers={"X-User": "u", "X-Role": "admin"}
        )
        try:
            with urllib.request.urlopen(request, timeout=SOON_S) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def pids(self) -> dict[str, int]:
        """Of the living processes, by role."""
        return {view.role: view.pid for view in running_processes(self.node.data_dir / "run") if view.beats}

    def close(self) -> None:
        for scanner in self._scanners:
            scanner.quit()
        self.node.close()
        self.tps.stop()
        self.database.close()
        self._admin.dispose()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Site]:
    """One for all tests of this file, in their order: it takes longer to start than a fault lasts."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(LIMITS)
    with pytest.MonkeyPatch.context() as patch, PostgresCluster() as cluster:
        path = f"{folder}:{harness._ENVIRONMENT.get('PYTHONPATH', '')}"
        patch.setattr(harness, "_ENVIRONMENT", {**harness._ENVIRONMENT, "PYTHONPATH": path})
        site = Site(folder, tiny_bundle, cluster)
        try:
            site.node.start()
            wait_for("every process", lambda: set(site.pids()) == ROLES)
            yield site
        finally:
            site.close()


# -- what becomes of the server ----------------------------------------------------------------------------------------


@contextmanager
def is_stopped(site: Site, mode: str) -> Iterator[None]:
    site.cluster.stop(mode)
    try:
        yield
    finally:
        site.cluster.start()


@contextmanager
def has_another_password(site: Site) -> Iterator[None]:
    site.sql("ALTER ROLE node PASSWORD 'second'")
    site.cut()
    try:
        yield
    finally:
        site.sql("ALTER ROLE node PASSWORD 'first'")


@contextmanager
def has_no_free_connection(site: Site) -> Iterator[None]:
    site.sql("ALTER ROLE node CONNECTION LIMIT 0")
    site.cut()
    try:
        yield
    finally:
        site.sql("ALTER ROLE node CONNECTION LIMIT -1")


@contextmanager
def is_standby(site: Site) -> Iterator[None]:
    site.cluster.become_standby()
    try:
        yield
    finally:
        site.cluster.promote()


def test_a_long_outage_is_told_by_each_role_in_few_lines(site: Site) -> None:
    """The first test of this file: the log leaves out lines that come too often, also those of the next test."""
    begin = site.node.log.stat().st_size

    def told() -> Counter[tuple[str, str]]:
        """How often each user of the database of each role has said that it waits."""
        log = site.node.log.read_text()[begin:]
        return Counter(re.findall(r"ERROR (\w+) store_unavailable  (.*?) waits for the database:", log))

    def everybody() -> bool:
        count = told()
        return {role for role, _ in count} == ROLES - {"serve"}

    with is_stopped(site, "immediate"):
        wait_for("the lines of each role", everybody)
        answer = site.node.run("status")
        assert answer.returncode == 2, "down"
        assert re.match("DOWN: the store .* cannot be read: connection .* failed", answer.stdout)
        answer = site.node.run("jobs", "ls")
        assert (answer.returncode, answer.stdout) == (1, "")
        assert re.match("syncect: the store .* cannot be read", answer.stderr)
    log = site.node.log.read_text()[begin:]
    tries = [(int(count), float(seconds)) for count, seconds in re.findall(r"failed (\d+) times in (\d+) s", log)]
    assert all(count <= 6 * (seconds + 1) for count, seconds in tries), "nobody tries without a pause"
    lasted_s = max((seconds for _, seconds in tries), default=0.0)
    assert max(told().values()) <= lasted_s / TELL_EVERY_S + 2
    others = Counter(re.findall(r"(?:ERROR|WARNING) (\w+ \w+) ", log))
    del others["receive store_unavailable"]
    assert {name for name in others if not name.endswith(("store_unavailable", "store_available"))} == set(), others
    wait_for("the page", lambda: site.ask("/readyz")[0] == 200)


def test_no_role_ends_and_nothing_is_lost_whatever_becomes_of_the_server(site: Site) -> None:
    before = site.pids()
    for fault, words in (
        (is_stopped(site, "fast"), "connection to server .* failed"),
        (is_stopped(site, "immediate"), "connection to server .* failed"),
        (has_another_password(site), "password authentication failed"),
        (has_no_free_connection(site), "too many connections"),
        (is_standby(site), "the server takes no writes: it is a standby"),
    ):
        passes(site, fault, words)
    wait_for("the end of each series", lambda: not unsettled(site.ledger, site.database))
    assert judge(site.ledger, site.database, site.node.data_dir / "spool").findings() == []
    assert site.pids() == before, "no role ended, not even to be started again"
    answer = site.node.run("status")
    assert (answer.returncode, answer.stdout.splitlines()[0][:3]) == (0, "OK:"), answer.stdout
    assert "Traceback" not in site.node.log.read_text()


def passes(site: Site, fault: AbstractContextManager[None], words: str) -> None:
    """A fault comes while a scanner sends, is told, and is over without anybody's help."""
    at_work = site.push()
    assert at_work.wait_for(2, 30.0)
    with fault:
        refused = site.push()
        wait_for("a refusal", lambda: any(status == REFUSED for _, status in list(refused.answers)))
        for path in ("/readyz", "/lights"):
            told = wait_for(f"news on {path}", partial(says, site, path, words), SOON_S)
            assert told == 503
    for scanner in (at_work, refused):
        assert scanner.join(60.0), "every instance is taken in the end"
    wait_for("the page", lambda: site.ask("/readyz")[0] == site.ask("/")[0] == 200)


def says(site: Site, path: str, words: str) -> int:
    """The status of a page once its text has these words."""
    status, text = site.ask(path)
    return status if re.search(words, text) else 0


def test_a_node_of_an_older_version_ends_after_an_upgrade_and_says_what_to_do(site: Site) -> None:
    """The last test of this file. A newer node has changed the schema; nobody starts the old code again and again."""
    begin = site.node.log.stat().st_size
    newer = create_engine(site.cluster.url("site"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with newer.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099'")
    newer.dispose()
    late = site.push()
    assert site.node.end() == [2], "a code after which systemd starts nothing again"
    late.quit()
    assert all(status != 0x0000 for _, status in late.answers), "nothing is taken that no version would keep"
    assert site.pids() == {}
    log = site.node.log.read_text()[begin:]
    sentence = "was made by a newer version of syncect (schema 0099, this version knows 0008): use that version"
    assert sentence in log.splitlines()[-1]
    assert (log.count("process_started"), "Traceback" in log) == (0, False), "no role was started again"
    again = site.node.run("serve")
    assert (again.returncode, sentence in again.stderr) == (2, True)
