"""Nobody reaches a page without a login or presses a button above his role, and no other page presses one for him."""

from inspect import isfunction, signature
from time import process_time

import pytest

from node.operate import verbs
from node.web.access import ROLE_OF_VERB, Role
from storage.roles import Role as StoredRole
from tests.component.web.conftest import log_in

ORDER = tuple(Role)


@pytest.mark.parametrize(
    "path", ["/", "/me", "/forgotten", "/no-such-page", "/login/x", "//login", "/LOGIN", "/static"]
)
def test_every_page_needs_a_login(door, path):
    door.user("anna")
    answer = door.browser().get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")
    assert door.browser(accept="application/json").get(path).status_code == 401
    assert door.browser(hx_request="true").get(path).headers["hx-redirect"] == "/login"
    assert door.browser().post(path).status_code == 401


@pytest.mark.parametrize("role", ORDER)
def test_a_role_presses_its_buttons_and_no_others(door, role):
    browser = door.logged_in("anna", role)
    token = {"X-CSRF-Token": browser.get("/").text}
    for needed in ORDER:
        answer = browser.post(f"/press/{needed}", headers=token)
        assert answer.status_code == (200 if ORDER.index(role) >= ORDER.index(needed) else 403)
    deeds = door.audited()[1:]
    assert deeds.count(("anna", "release", "ok")) == ORDER.index(role) + 1
    assert deeds.count(("anna", "forbidden", "refused")) == 3 - ORDER.index(role)
    assert StoredRole is Role


def test_every_verb_has_its_role():
    acts = [name for name, act in vars(verbs).items() if isfunction(act) and "actor" in signature(act).parameters]
    assert sorted(acts) == sorted(ROLE_OF_VERB)
    assert (ROLE_OF_VERB["retry"], ROLE_OF_VERB["release"], ROLE_OF_VERB["purge"]) == ORDER[1:]


def test_whatever_changes_something_needs_the_token_of_the_person(door):
    anna, bert = door.logged_in("anna", Role.ADMIN), door.logged_in("bert", Role.ADMIN)
    token = anna.get("/").text
    form = {"content-type": "application/x-www-form-urlencoded"}
    refused = [
        anna.post("/press/viewer"),
        anna.post("/press/viewer", data={"csrf": ""}),
        anna.post("/press/viewer", data={"csrf": bert.get("/").text}),
        anna.post("/press/viewer", headers={"X-CSRF-Token": token[:-1]}),
        anna.post("/press/viewer", headers=[("X-CSRF-Token", token), ("X-CSRF-Token", "x")]),
        anna.post("/press/viewer", content=b"csrf=%ff\xff", headers=form),
        anna.post("/press/viewer", content=b"&".join([b"a=1"] * 300), headers=form),
        anna.post(f"/press/viewer?csrf={token}"),
        anna.post("/press/viewer", json={"csrf": token}),
        anna.delete("/press/viewer"),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert anna.post("/press/viewer", data={"csrf": token}).text == "pressed by anna"
    assert anna.post("/press/viewer", headers={"X-CSRF-Token": token}).status_code == 200
    assert anna.request("TRACE", "/").status_code == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Origin": "http://localhost:8042]"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_presses_nothing_even_with_the_token(door, headers):
    browser = door.logged_in("anna", Role.ADMIN)
    token = {"X-CSRF-Token": browser.get("/").text}
    assert browser.post("/press/viewer", headers=token | headers).status_code == 403
    own = {"Origin": "http://localhost:8042", "Sec-Fetch-Site": "same-origin"}
    assert browser.post("/press/viewer", headers=token | own).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8042", 303),
        ("LocalHost", 303),
        ("127.0.0.1:8042", 303),
        ("[::1]:8042", 303),
        ("ct.hospital.example", 303),
        ("ct.hospital.example.", 303),
        ("10.9.9.9:8042", 400),
        ("evil.example", 400),
        ("localhost.evil.example", 400),
        ("localhost@evil.example", 400),
        ("localhost:x", 400),
        ("localhost/", 400),
        ("", 400),
    ],
)
def test_the_page_answers_to_its_own_names_only(make_door, host, status):
    door = make_door(allowed_hosts=["CT.hospital.example"])
    assert door.browser(host=host).get("/").status_code == status


def test_the_address_at_which_a_connection_arrived_is_a_name_too(door):
    assert door.browser(url="http://10.1.2.3:8042").get("/").status_code == 303
    assert door.browser(url="http://rebound.example:8042").get("/").status_code == 400


def test_every_answer_forbids_the_browser_all_but_its_own(door):
    browser = door.logged_in("anna")
    outside = door.browser(host="evil.example")
    for answer in (browser.get("/"), browser.get("/nowhere"), browser.get("/broken"), outside.get("/")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
    assert "cache-control" not in door.browser().get("/static/x.css").headers


def test_an_error_is_told_to_the_log_and_not_to_the_browser(door, caplog):
    answer = door.logged_in("anna").get("/broken")
    assert (answer.status_code, "DOE" in answer.text) == (500, False)
    assert "a page ended by an error" in caplog.text


def test_a_large_request_is_refused_before_it_is_read(door):
    browser = door.logged_in("anna", Role.ADMIN)
    token = {"X-CSRF-Token": browser.get("/").text}
    assert browser.post("/press/viewer", content=b"x" * 65_537, headers=token).status_code == 413
    assert browser.post("/press/viewer", content=iter([b"x" * 40_000] * 2), headers=token).status_code == 413
    assert browser.get("/", headers={"content-length": "9" * 30}).status_code == 413
    assert browser.get("/", headers={"content-length": "-1"}).status_code == 413
    assert browser.post("/press/viewer", content=b"x" * 65_000, headers=token).status_code == 200


@pytest.mark.parametrize(
    "other", ['a="' + '\\"' * 25_000 + '"', 'a="' + "\\" * 50_000, "a=b; " * 10_000, "; ;=;a;a==b;", "{}=[]"]
)
def test_no_cookie_of_others_takes_long_or_hides_that_of_the_page(door, other):
    own = f"syncect-session={door.logged_in('anna').cookies['syncect-session']}"
    stranger = door.browser(cookie=f"{other}; {own}")
    began_s = process_time()
    assert stranger.get("/me").json()["name"] == "anna"
    assert process_time() - began_s < 1.0


def test_a_request_with_two_lengths_ends_its_connection(door):
    both = {"content-length": "5", "transfer-encoding": "chunked"}
    answer = door.browser().post("/login", content=b"a=b&c", headers=both)
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_monitors_need_no_login_and_no_store(make_door, path, monkeypatch):
    door = make_door(monitors=["10.5.0.0/16"])
    assert door.browser("10.6.0.1", accept="*/*").get(path).status_code == 401
    assert door.logged_in("anna", address="10.6.0.1").get(path).status_code == 200
    monkeypatch.setattr(door.app.state.entrance, "person", None)
    assert door.browser("10.5.0.1").get(path).text == "numbers 1"
    assert door.browser("::ffff:10.5.0.1").get(path).text == "numbers 1"


def test_by_default_only_this_machine_monitors(door):
    assert door.browser("127.0.0.1").get("/metrics").status_code == 200
    assert door.browser("::1").get("/metrics").status_code == 200
    assert door.browser("10.0.0.1", accept="*/*").get("/metrics").status_code == 401


def test_a_store_that_does_not_answer_lets_nobody_in(door, monkeypatch):
    from storage.errors import StoreUnavailable
    from storage.users import UserStore

    browser = door.logged_in("anna")

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store cannot be used")

    monkeypatch.setattr(UserStore, "session", fail)
    assert browser.get("/").status_code == 503


def test_a_removed_user_and_a_new_role_count_at_once(door):
    browser = door.logged_in("anna")
    assert browser.get("/").status_code == 200
    door.node.users.remove("anna", even_last_admin=True)
    assert browser.get("/").status_code == 303


def test_a_session_ends_without_a_click_and_in_any_case(make_door, clock):
    door = make_door(session_idle_s=100, session_s=400)
    browser = door.logged_in("anna")
    clock.pass_s(99)
    assert browser.get("/", headers={"X-Syncect-Poll": "1"}).status_code == 200
    clock.pass_s(2)
    assert browser.get("/").status_code == 303
    log_in(browser, "anna")
    for _ in range(4):
        clock.pass_s(90)
        assert browser.get("/").status_code == 200
    clock.pass_s(50)
    assert browser.get("/").status_code == 303
