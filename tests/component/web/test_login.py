"""The login: what it sets, what it tells nobody, and how it bears those who try too often."""

import threading

import pytest

from node.web import passwords
from node.web.access import Role
from node.web.attempts import ADDRESSES, MOST, WINDOW_S, Attempts
from node.web.login import WRONG, own_path
from node.web.passwords import Comparer, TooBusy, check_password, hash_password
from storage.users import FREE_FAILURES
from tests.component.web.conftest import PASSWORD, form_of, log_in


def cookies_of(answer) -> dict[str, str]:
    """The attributes of each cookie that an answer sets."""
    found = {}
    for line in answer.headers.get_list("set-cookie"):
        name, _, rest = line.partition("=")
        found[name] = rest.partition("; ")[2].lower()
    return found


def test_without_a_user_the_page_says_how_to_make_one_and_nothing_else(door):
    browser = door.browser()
    answer = browser.get("/login")
    assert "syncect users add NAME --role admin" in answer.text
    assert "password" not in answer.text
    assert browser.get("/").headers["location"] == "/login"
    door.user("anna", Role.ADMIN)
    assert 'type="password"' in browser.get("/login").text


def test_the_form_is_labelled_and_has_nothing_inline(door):
    door.user("anna")
    text = door.browser().get("/login").text
    assert '<html lang="en">' in text
    assert '<label for="name">' in text
    assert '<label for="password">' in text
    assert "<script" not in text
    assert "style=" not in text
    assert "<style" not in text


def test_a_login_gives_a_cookie_that_scripts_and_other_sites_never_get(door):
    door.user("anna")
    plain = log_in(door.browser(), "ANNA ")
    assert (plain.status_code, plain.headers["location"]) == (303, "/")
    assert cookies_of(plain)["syncect-session"] == "httponly; path=/; samesite=strict"
    secure = log_in(door.browser(url="https://localhost:8042"), "anna")
    assert cookies_of(secure)["__Host-syncect-session"] == "httponly; path=/; samesite=strict; secure"
    assert door.audited() == [("anna", "login", "ok")] * 2


def test_over_tls_a_cookie_of_an_unencrypted_page_is_none(door):
    door.logged_in("anna", url="http://localhost:8042")
    browser = door.browser(url="https://localhost:8042")
    token = log_in(door.browser(), "anna").cookies["syncect-session"]
    assert browser.get("/", headers={"cookie": f"syncect-session={token}"}).status_code == 303
    assert browser.get("/", headers={"cookie": f"__Host-syncect-session={token}"}).status_code == 200


def test_a_login_never_takes_a_token_that_was_there_before(door):
    door.user("anna")
    victim = door.browser()
    victim.cookies.set("syncect-session", "known-to-somebody")
    first = log_in(victim, "anna").cookies["syncect-session"]
    assert first != "known-to-somebody"
    thief = door.browser(cookie="syncect-session=known-to-somebody")
    assert thief.get("/").status_code == 303
    other = door.browser(cookie=f"syncect-session={first}")
    assert other.get("/").status_code == 200
    door.node.users.add("bert", "", Role.VIEWER, hash_password(PASSWORD), door.clock())
    form = {"name": "bert", "password": PASSWORD}
    victim.cookies.delete("syncect-session")
    token = form_of(victim)
    victim.cookies.set("syncect-session", first)
    assert victim.post("/login", data=form | {"csrf": token}).status_code == 303
    assert other.get("/").status_code == 303  # the session of before is over


def test_a_form_that_another_page_made_logs_nobody_in(door):
    door.user("mallory")
    own = form_of(door.browser())
    victim = door.browser()
    answer = victim.post("/login", data={"name": "mallory", "password": PASSWORD, "csrf": own})
    assert (answer.status_code, "too old" in answer.text) == (403, True)
    origin = {"Origin": "http://evil.example"}
    form = {"name": "mallory", "password": PASSWORD, "csrf": form_of(victim)}
    assert victim.post("/login", data=form, headers=origin).status_code == 403
    assert door.audited() == []


def test_wrong_unknown_and_locked_get_one_answer(door, clock):
    door.user("anna")
    browser = door.browser()
    wrong, unknown = log_in(browser, "anna", "wrong"), log_in(browser, "nobody", "wrong")
    odd = log_in(browser, "'; DROP TABLE web_user; --", "wrong")
    for _ in range(FREE_FAILURES - 1):
        log_in(browser, "anna", "wrong")
    locked = log_in(browser, "anna")
    for answer, name in ((wrong, "anna"), (unknown, "nobody"), (locked, "anna")):
        assert answer.status_code == 401
        assert WRONG in answer.text
        assert answer.text.replace(f'value="{name}"', "") == wrong.text.replace('value="anna"', "")
    assert (odd.status_code, "&#39;; DROP" in odd.text) == (401, True)
    deeds = door.audited()
    assert deeds[1:3] == [("", "login", "refused")] * 2  # a password may be typed as a name: it is kept nowhere
    assert deeds[-1] == ("anna", "login", "locked")
    clock.pass_s(31)
    assert log_in(browser, "anna").status_code == 303


def test_the_lock_of_a_name_outlives_a_restart_and_the_browser(make_door):
    door = make_door()
    door.user("anna")
    for _ in range(FREE_FAILURES):
        log_in(door.browser(), "anna", "wrong")
    assert log_in(make_door().browser("10.9.9.9"), "anna").status_code == 401


def test_an_unknown_name_takes_the_same_work(door, monkeypatch):
    door.user("anna")
    worked: list[str] = []
    verify = passwords._verify

    def counted(password: str, secret: str) -> bool:
        worked.append(secret[:9])
        return verify(password, secret)

    monkeypatch.setattr(passwords, "_verify", counted)
    for name in ("anna", "nobody", "-", ""):
        log_in(door.browser(), name, "wrong")
    for _ in range(FREE_FAILURES):
        log_in(door.browser(), "anna", "wrong")
    assert worked == ["$argon2id"] * (4 + FREE_FAILURES)


def test_an_address_that_tries_too_often_waits(door):
    door.user("anna")
    door.user("bert")
    browser = door.browser()
    for number in range(MOST):
        log_in(browser, f"nobody-{number}", "wrong")
    answer = log_in(browser, "bert")
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= WINDOW_S
    assert log_in(door.browser("10.0.0.8"), "bert").status_code == 303


def test_attempts_are_counted_by_network_and_bounded():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    for number in range(MOST):
        assert attempts.take(f"fd00::{number:x}") == 0
    assert attempts.take("fd00::ffff") == WINDOW_S
    assert attempts.take("fd00:0:0:1::1") == 0
    now[0] = WINDOW_S
    assert attempts.take("fd00::1") == 0
    attempts.give_back("fd00::1")
    attempts.give_back("never seen")
    for number in range(ADDRESSES + 100):
        attempts.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts) == ADDRESSES


def test_a_flood_of_logins_compares_two_passwords_at_once_and_lets_few_wait(monkeypatch):
    comparer = Comparer()
    gate, turn = threading.Event(), threading.Lock()
    at_once, most, busy = 0, 0, []

    def verify(_password: str, _secret: str) -> bool:
        nonlocal at_once, most
        with turn:
            at_once += 1
            most = max(most, at_once)
        gate.wait(10)
        with turn:
            at_once -= 1
        return True

    def one() -> None:
        try:
            comparer.matches("p", "s")
        except TooBusy:
            busy.append(1)
            if len(busy) == 30 - passwords.AT_ONCE - passwords.WAITING:
                gate.set()

    monkeypatch.setattr(passwords, "_verify", verify)
    threads = [threading.Thread(target=one) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= passwords.AT_ONCE
    assert gate.is_set()


def test_a_page_that_is_too_busy_says_so(door, monkeypatch):
    door.user("anna")

    def busy(*_: object) -> bool:
        raise TooBusy

    monkeypatch.setattr(Comparer, "matches", busy)
    assert log_in(door.browser(), "anna").headers["retry-after"] == "5"


def test_a_logout_needs_the_token_and_ends_the_session(door):
    browser = door.logged_in("anna")
    thief = door.browser(cookie=f"syncect-session={browser.cookies['syncect-session']}")
    assert browser.get("/logout").status_code == 405
    assert browser.post("/logout").status_code == 403
    answer = browser.post("/logout", data={"csrf": browser.get("/").text})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert thief.get("/").status_code == 303
    assert door.audited()[-1] == ("anna", "logout", "ok")


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "javascript:alert(1)",
        "evil.example",
        "",
        "/\t/evil.example",
        "/\n/evil.example",
        "\\/evil.example",
        "//[",
        "//[::1",
        "/login?next=/login",
        "/a\\b",
        "http:/x",
        "/" + "a" * 3000,
        "/é",
        "///evil.example",
    ],
)
def test_a_login_leads_nowhere_else(door, wanted):
    assert own_path(wanted) == "/"
    door.user("anna")
    assert log_in(door.browser(), "anna", next=wanted).headers["location"] == "/"


def test_a_login_leads_back_to_the_page_that_was_wanted(door):
    door.user("anna")
    browser = door.browser()
    shown = browser.get("/me?state=HELD&from=A B")
    assert shown.headers["location"] == "/login?next=%2Fme%3Fstate%3DHELD%26from%3DA%2520B"
    form = browser.get(shown.headers["location"])
    assert 'name="next" value="/me?state=HELD&amp;from=A%20B"' in form.text
    assert log_in(browser, "anna", next="/me?a=1").headers["location"] == "/me?a=1"
    assert browser.get("/login?next=/me").headers["location"] == "/me"
    assert browser.get("/login?next=//evil.example").headers["location"] == "/"


def test_a_password_is_long_and_means_the_same_from_every_keyboard():
    for password, sentence in (("short", "at least 12"), ("x" * 1025, "at most 1024"), ("a" * 12 + "\x00", "control")):
        with pytest.raises(ValueError, match=sentence):
            check_password(password)
    comparer = Comparer()
    secret = hash_password("Ga\u0308rtner im Haus")
    assert comparer.matches("G\u00e4rtner im Haus", secret)
    assert not comparer.matches("G\u00e4rtner im Haus", None)
    assert not comparer.matches("x", "no hash")
    assert not comparer.matches("\ud800", secret)
    assert passwords.newer_hash("p" * 12, hash_password("p" * 12)) is None


def test_a_weaker_hash_of_an_earlier_version_is_renewed_at_a_login(door):
    from argon2 import PasswordHasher

    weak = PasswordHasher(time_cost=1, memory_cost=32, parallelism=1).hash(PASSWORD)
    door.node.users.add("anna", "", Role.VIEWER, weak, door.clock())
    assert log_in(door.browser(), "anna").status_code == 303
    assert door.node.users.find("anna").secret.startswith("$argon2id$v=19$m=64,")
    assert log_in(door.browser(), "anna").status_code == 303
