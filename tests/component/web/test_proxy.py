"""A reverse proxy says who asks, and only a proxy that is trusted is heard."""

import pytest

from node.web.access import Role
from node.web.passwords import hash_password
from tests.component.web.conftest import log_in

PROXY = "10.1.2.8"
USER = {"trusted_proxies": [PROXY, "10.1.3.0/24"], "user_header": "X-Forwarded-User"}
ROLE = {**USER, "role_header": "X-Forwarded-Role"}


def test_a_trusted_proxy_names_a_person_who_needs_no_login(make_door):
    door = make_door(**USER)
    browser = door.browser(PROXY, x_forwarded_user="HOSP\\Anna", x_forwarded_for="10.0.0.7")
    answer = browser.get("/me").json()
    assert (answer["name"], answer["role"]) == ("hosp\\anna", "viewer")
    assert "x-forwarded-user" not in answer["headers"]
    token = browser.get("/").text
    assert browser.post("/press/viewer").status_code == 403
    assert browser.post("/press/viewer", data={"csrf": token}).status_code == 200
    assert browser.post("/press/operator", data={"csrf": token}).status_code == 403
    assert door.audited()[0] == ("hosp\\anna", "login", "ok")
    assert {entry.address for entry in door.node.audit.newest()} == {"10.0.0.7"}
    assert [deed for _, deed, _ in door.audited()].count("login") == 1


def test_the_role_is_that_of_the_user_or_of_the_proxy(make_door):
    door = make_door(**USER)
    door.user("anna", Role.PHYSICIST)
    assert door.browser(PROXY, x_forwarded_user="anna").get("/me").json()["role"] == "physicist"
    door = make_door(**ROLE)
    assert door.browser(PROXY, x_forwarded_user="anna").get("/me").json()["role"] == "viewer"
    assert door.browser(PROXY, x_forwarded_user="b", x_forwarded_role="Admin").get("/me").json()["role"] == "admin"


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "10.1.2.9", "testclient", "::1"])
def test_from_elsewhere_the_header_is_nothing(make_door, address):
    door = make_door(**ROLE)
    headers = {"x_forwarded_user": "anna", "x_forwarded_role": "admin", "x_forwarded_for": PROXY}
    options = {"address": address, "url": "https://localhost:8042", **headers}
    assert door.browser(**options).get("/me").status_code == 303
    browser = door.logged_in("bert", **options)
    answer = browser.get("/me").json()
    assert (answer["name"], answer["role"]) == ("bert", "viewer")
    assert "x-forwarded-user" not in answer["headers"]
    assert "x-forwarded-role" not in answer["headers"]


def test_without_the_setting_no_header_names_anybody(make_door):
    door = make_door(trusted_proxies=[PROXY])
    door.user("anna")
    assert door.browser(PROXY, x_forwarded_user="anna").get("/me").status_code == 303


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ("", "admin"),
        ("a b", "admin"),
        ("a" * 65, "admin"),
        ("anna", "root"),
        ("anna", ""),
        ("a,b", "admin"),
        ("é", "admin"),
    ],
)
def test_a_header_that_names_nobody_lets_nobody_in(make_door, user, role):
    headers = [("x-forwarded-user", user.encode("latin-1")), ("x-forwarded-role", role.encode())]
    assert make_door(**ROLE).browser(PROXY).get("/me", headers=headers).status_code == 400


def test_a_header_that_is_there_twice_lets_nobody_in(make_door):
    browser = make_door(**ROLE).browser(PROXY)
    twice = [("x-forwarded-user", "anna"), ("x-forwarded-user", "bert")]
    assert browser.get("/me", headers=twice).status_code == 400
    roles = [("x-forwarded-user", "a"), ("x-forwarded-role", "viewer"), ("x-forwarded-role", "admin")]
    assert browser.get("/me", headers=roles).status_code == 400


def test_behind_a_proxy_that_ends_tls_cookies_are_secure(make_door):
    door = make_door(trusted_proxies=[PROXY])
    door.user("anna")
    browser = door.browser(PROXY, url="https://localhost:8042", x_forwarded_proto="https")
    assert "__Host-syncect-session" in log_in(browser, "anna").headers["set-cookie"]
    liar = log_in(door.browser("127.0.0.1", x_forwarded_proto="https"), "anna")
    assert "__Host-" not in liar.headers["set-cookie"]


def test_past_the_proxy_no_password_crosses_the_network_in_clear(make_door):
    door = make_door(trusted_proxies=[PROXY], host="0.0.0.0", monitors=["10.0.0.0/8"])
    assert door.browser("10.0.0.7").get("/login").status_code == 400
    assert door.browser("10.0.0.7").get("/").status_code == 400
    for address, url in (
        ("127.0.0.1", "http://localhost"),
        ("10.0.0.7", "https://localhost"),
        (PROXY, "http://localhost"),
    ):
        assert door.browser(address, url=url).get("/login").status_code == 200
    assert door.browser("10.0.0.7").get("/metrics").status_code == 200


def test_the_address_is_the_nearest_that_is_no_trusted_proxy(make_door):
    door = make_door(**USER)
    door.node.users.add("anna", "", Role.VIEWER, hash_password("x" * 12), door.clock())
    for hops, address in (
        ("1.1.1.1, 10.0.0.7", "10.0.0.7"),
        ("10.0.0.7, 10.1.3.4", "10.0.0.7"),
        ("10.0.0.7, junk", PROXY),
        ("", PROXY),
    ):
        door.clock.pass_s(5000)
        door.browser(PROXY, x_forwarded_user="anna", x_forwarded_for=hops).get("/")
        assert door.node.audit.newest(limit=1)[0].address == address


def test_a_proxy_on_this_machine_hides_no_stranger_from_the_monitors(make_door):
    door = make_door(trusted_proxies=["127.0.0.1"])
    assert door.browser("127.0.0.1", x_forwarded_for="10.0.0.7", accept="*/*").get("/metrics").status_code == 401
    assert door.browser("127.0.0.1").get("/metrics").status_code == 200
    for hops in ("10.0.0.7:50123", "unknown", "127.0.0.1, _hidden", "[2001:db8::1]:80"):
        assert door.browser("127.0.0.1", x_forwarded_for=hops, accept="*/*").get("/metrics").status_code == 401


def test_a_form_behind_a_proxy_that_changes_the_host_is_of_this_page(make_door):
    door = make_door(trusted_proxies=[PROXY], allowed_hosts=["ct.hospital.example"])
    browser = door.logged_in("anna", address=PROXY)
    token = {"X-CSRF-Token": browser.get("/").text}
    own, other = {"Origin": "https://ct.hospital.example"}, {"Origin": "https://evil.example"}
    assert browser.post("/press/viewer", headers=token | own).status_code == 200
    assert browser.post("/press/viewer", headers=token | other).status_code == 403
