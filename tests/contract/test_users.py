"""Who may log in, who is logged in and what people did, kept alike on SQLite and on PostgreSQL."""

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from storage.audit import AuditEntry, AuditStore
from storage.errors import IllegalTransition, NotFound, StoreUnavailable
from storage.retention import RetentionStore
from storage.roles import Role
from storage.users import FREE_FAILURES, LONGEST_LOCK, MAX_SESSIONS, LoggedIn, UserStore, user_name

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
TIMES = {"idle_s": 100, "most_s": 1000}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def users(database):
    users = UserStore(database)
    users.add("anna", "Anna Berg", Role.ADMIN, "hash-1", T0)
    return users


def log_in(users: UserStore, token="t", name="anna", seconds=0.0) -> bool:
    user = users.find(name)
    assert user is not None
    return users.log_in(user, token, "c", "10.0.0.1", at(seconds))


def test_roles_are_ordered_by_what_they_may_do():
    assert Role.VIEWER < Role.OPERATOR < Role.PHYSICIST < Role.ADMIN
    assert sorted(["physicist", "admin", "viewer"], key=Role) == ["viewer", "physicist", "admin"]
    assert Role.ADMIN >= Role.ADMIN
    assert not Role.OPERATOR >= Role.PHYSICIST
    assert Role.ADMIN > Role.VIEWER
    assert Role.VIEWER <= Role.VIEWER


@pytest.mark.parametrize("text", ["", " ", "a b", "-x", "a" * 65, "müller", "a\x00", "a;b", "../x", "a\nb"])
def test_a_name_is_ascii_and_short(text):
    with pytest.raises(ValueError, match="1 to 64 characters"):
        user_name(text)


def test_a_name_is_kept_once_and_in_lower_case(users):
    assert user_name(" HOSP\\Anna.Berg ") == "hosp\\anna.berg"
    with pytest.raises(IllegalTransition, match="a user anna already"):
        users.add("anna", "", Role.VIEWER, "h", at(1))
    assert [(user.name, user.full_name, user.role, user.created_at) for user in users.all()] == [
        ("anna", "Anna Berg", Role.ADMIN, T0)
    ]


def test_a_new_password_and_a_removal_end_the_sessions(users):
    assert log_in(users)
    users.set_password("anna", "hash-2", at(5))
    assert (users.session_count("anna"), users.session("t", at(5), **TIMES)) == (0, None)
    assert log_in(users)
    users.remove("anna", even_last_admin=True)
    assert users.session("t", at(5), **TIMES) is None
    assert not users.any()
    for call in (lambda: users.set_password("anna", "h", T0), lambda: users.remove("anna", even_last_admin=True)):
        with pytest.raises(NotFound):
            call()


def test_the_last_admin_stays(users):
    users.add("bert", "", Role.PHYSICIST, "h", T0)
    with pytest.raises(IllegalTransition, match="last admin"):
        users.remove("anna", even_last_admin=False)
    users.remove("bert", even_last_admin=False)
    users.add("carl", "", Role.ADMIN, "h", T0)
    threads = [threading.Thread(target=_try_remove, args=(users, name)) for name in ("anna", "carl")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(users.all()) == 1


def _try_remove(users: UserStore, name: str) -> None:
    with suppress(IllegalTransition):
        users.remove(name, even_last_admin=False)


def test_a_name_is_locked_for_longer_each_time_and_a_login_counts_anew(users):
    for _ in range(FREE_FAILURES - 1):
        users.refused("anna", T0)
    assert not users.find("anna").is_locked(T0)
    users.refused("anna", T0)
    assert users.find("anna").locked_until == at(30)
    assert not log_in(users, seconds=29)
    users.refused("anna", at(31))
    assert users.find("anna").locked_until == at(31 + 60)
    for _ in range(30):
        users.refused("anna", at(100))
    assert users.find("anna").locked_until == at(100) + LONGEST_LOCK
    assert log_in(users, seconds=100 + LONGEST_LOCK.total_seconds())
    assert (users.find("anna").failures, users.find("anna").locked_until) == (0, None)
    users.refused("nobody", T0)
    assert users.find("nobody") is None


def test_a_password_that_was_changed_meanwhile_logs_nobody_in(users):
    before = users.find("anna")
    users.rehash("anna", "hash-1", "hash-1b")
    users.rehash("anna", "hash-1", "hash-lost")
    assert users.find("anna").secret == "hash-1b"
    assert not users.log_in(before, "t", "c", "", T0)


def test_a_session_ends_by_itself(users):
    log_in(users)
    assert users.session("t", at(99), **TIMES) == LoggedIn("anna", "Anna Berg", Role.ADMIN, "c")
    assert users.session("t", at(198), extends=False, **TIMES) is not None
    assert users.session("t", at(199), **TIMES) is None  # what the page does by itself extended nothing
    log_in(users)
    for seconds in range(90, 1000, 90):
        assert users.session("t", at(seconds), **TIMES) is not None
    assert users.session("t", at(1000), **TIMES) is None
    assert users.session_count("anna") == 0


def test_a_session_goes_on_where_the_store_can_only_be_read(users, database, monkeypatch):
    log_in(users)

    def full():
        raise StoreUnavailable("the store cannot be used: database or disk is full")

    monkeypatch.setattr(database, "write", full)
    assert users.session("t", at(90), **TIMES) is not None
    assert users.session("t", at(101), **TIMES) is None


def test_sessions_of_one_person_are_bounded_and_old_ones_go(users):
    for number in range(MAX_SESSIONS + 5):
        assert log_in(users, f"t{number}", seconds=number)
    assert users.session_count("anna") == MAX_SESSIONS
    assert users.session("t4", at(30), **TIMES) is None
    assert users.session("t5", at(30), **TIMES) is not None
    users.end_session("t5")
    users.end_session("t5")
    users.forget_sessions(at(20))
    assert users.session_count("anna") == 5


def test_what_people_did_is_kept_and_goes_with_the_history(database):
    audit = AuditStore(database)
    for number, who in enumerate(("anna", "bert", "anna")):
        audit.record(AuditEntry(at(number), who, "10.0.0.1", "release", "ok", "12-2", f"reason\x00 {number}"))
    assert [entry.detail for entry in audit.newest()] == ["reason� 2", "reason� 1", "reason� 0"]
    assert [entry.at for entry in audit.newest(who="anna", limit=1)] == [at(2)]
    assert [entry.who for entry in audit.newest(since=at(1))] == ["anna", "bert"]
    RetentionStore(database).forget(at(1))
    assert [entry.at for entry in audit.newest()] == [at(2), at(1)]
