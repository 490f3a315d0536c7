"""`users` and `audit` as an administrator types them."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from node.web.passwords import Comparer
from storage.audit import AuditEntry

PASSWORD = "correct horse battery"


@pytest.fixture
def add(run, config, monkeypatch):
    """Adds a user with a password from standard input."""

    def call(*arguments: str, command="add", password=PASSWORD):
        monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
        return run("users", command, *arguments, "--password-stdin")

    return call


@pytest.fixture
def node(config):
    with open_store(load_settings(config)) as node:
        yield node


def log_in(node, name="anna") -> None:
    user = node.users.find(name)
    assert node.users.log_in(user, "t" * 64, "c", "10.0.0.7", datetime.now(UTC))


def test_a_user_is_made_listed_and_removed(run, add, node):
    assert run("users", "ls")[2] == (
        "nobody can log in yet; `syncect users add NAME --role admin` makes the first user\n"
    )
    assert add("Anna", "--role", "admin", "--full-name", "Anna\n Berg\x1b") == (0, "", "anna can log in as admin\n")
    assert node.users.find("anna").secret.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert Comparer().matches(PASSWORD, node.users.find("anna").secret)
    head, row = run("users", "ls")[1].splitlines()
    assert head.split() == ["NAME", "ROLE", "PASSWORD", "SESSIONS", "STATE", "FULL", "NAME"]
    assert row.split()[:2] + row.split()[3:] == ["anna", "admin", "ago", "0", "Anna", "Berg?"]
    (told,) = json.loads(run("users", "ls", "--json")[1])
    assert (told["name"], told["role"], told["sessions"], told["locked_until"]) == ("anna", "admin", 0, None)
    assert "secret" not in told
    assert add("bert")[2] == "bert can log in as viewer\n"
    assert run("users", "rm", "bert") == (0, "", "bert can log in no more\n")
    assert [one["action"] for one in json.loads(run("audit", "ls", "--json")[1])] == [
        "remove user",
        "add user",
        "add user",
    ]


def test_the_last_admin_is_removed_only_on_purpose(run, add, node):
    add("anna", "--role", "admin")
    code, _, err = run("users", "rm", "anna")
    assert (code, "last admin" in err) == (4, True)
    assert run("users", "rm", "anna", "--yes")[0] == 0
    assert run("users", "rm", "anna")[0] == 3


def test_a_new_password_ends_the_sessions_and_opens_the_name(run, add, node):
    add("anna")
    log_in(node)
    for _ in range(9):
        node.users.refused("anna", datetime.now(UTC))
    assert "locked" in run("users", "ls")[1]
    code, _, err = add("anna", command="passwd", password="another long password")
    assert (code, err) == (0, "anna has a new password and is logged in nowhere\n")
    assert (node.users.session_count("anna"), node.users.find("anna").locked_until) == (0, None)
    assert add("nobody", command="passwd")[0] == 3


@pytest.mark.parametrize(
    ("name", "password", "code"),
    [("a b", PASSWORD, 2), ("anna", "short", 2), ("anna", "", 2), ("anna", "x" * 2000, 2)],
)
def test_what_is_no_name_or_no_password_is_told(add, name, password, code):
    given, _, err = add(name, password=password)
    assert (given, "characters" in err) == (code, True)
    assert PASSWORD not in err


def test_a_name_is_given_once(add):
    add("anna")
    code, _, err = add("ANNA")
    assert (code, "users passwd anna" in err) == (4, True)


def test_a_terminal_asks_twice_and_shows_nothing(run, monkeypatch, node):
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})())
    answers = iter([PASSWORD, "different words here", PASSWORD, PASSWORD])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(answers))
    assert run("users", "add", "anna")[0] == 2
    assert run("users", "add", "anna")[0] == 0
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = run("users", "add", "bert")
    assert (code, "--password-stdin" in err) == (2, True)


def test_the_audit_trail_is_listed_by_time_and_person(run, node):
    assert run("audit", "ls")[2] == "nothing was noted\n"
    now = datetime.now(UTC)
    for hours, who in ((5, "anna"), (1, "bert")):
        at = now - timedelta(hours=hours)
        node.audit.record(AuditEntry(at, who, "10.0.0.7", "release", "ok", "12-2", "looks\x1b[1m right"))
    head, first, second = run("audit", "ls")[1].splitlines()
    assert head.split() == ["TIME", "WHO", "FROM", "ACTION", "CASE", "OUTCOME", "DETAIL"]
    assert first.split()[3:9] == ["bert", "10.0.0.7", "release", "12-2", "ok", "looks�[1m"]
    assert "anna" in second
    assert [one["who"] for one in json.loads(run("audit", "ls", "--since", "2h", "--json")[1])] == ["bert"]
    assert [one["who"] for one in json.loads(run("audit", "ls", "--who", "Anna", "--json")[1])] == ["anna"]
    assert len(run("audit", "ls", "--limit", "1")[1].splitlines()) == 2
    assert run("audit", "ls", "--since", "soon")[0] == 2
