"""The page in a browser: it says that it is old, and why, and never that something failed which may be done."""

from collections.abc import Callable, Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from node.web.access import Role
from node.web.lights import Lights
from storage.errors import StoreUnavailable
from tests.chromium import chromium
from tests.component.web.conftest import PASSWORD
from tests.component.web.test_review_browser import serving, until
from tests.component.web.ward import Ward


@pytest.fixture(scope="module")
def chrome(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_script_timeout(10)
        yield driver


@pytest.fixture
def at(ward: Ward, chrome: webdriver.Chrome) -> Iterator[Callable[[str], webdriver.Chrome]]:
    """Opens a path of the page for a physicist."""
    ward.visitor(Role.PHYSICIST)
    with serving(ward.app) as address:

        def go(path: str) -> webdriver.Chrome:
            chrome.get(f"{address}{path}")
            if chrome.find_elements(By.NAME, "password"):
                chrome.find_element(By.NAME, "name").send_keys("physicist")
                chrome.find_element(By.NAME, "password").send_keys(PASSWORD)
                chrome.find_element(By.CSS_SELECTOR, "form button").click()
                chrome.get(f"{address}{path}")
            return chrome

        yield go
        chrome.delete_all_cookies()


def pass_s(page: webdriver.Chrome, seconds: float, clock: str = "steady") -> None:
    """Let a clock of the browser go on, which is set or steady."""
    of = {"set": "Date", "steady": "performance"}[clock]
    page.execute_script(f"var now = {of}.now; {of}.now = function () {{ return now.call({of}) + {seconds * 1000}; }};")


def refresh(page: webdriver.Chrome) -> None:
    page.execute_script("htmx.trigger(document.body, 'tick')")


def note(page: webdriver.Chrome) -> str:
    return str(page.find_element(By.ID, "stale").text)


@pytest.mark.parametrize("path", ["/", "/cases/1"])
def test_a_page_whose_node_says_nothing_more_is_not_current(ward, at, path) -> None:
    ward.department.held()
    page = at(path)
    assert note(page) == ""
    pass_s(page, -3600, "set")  # somebody sets the clock back, which makes nothing newer
    pass_s(page, 130)
    until(page, lambda: note(page))
    assert note(page).startswith("Not current for more than 2 min: ")
    refresh(page)
    until(page, lambda: not note(page))


@pytest.mark.parametrize("part", ["strip_of", "listing_of"])
def test_a_part_that_the_node_cannot_give_is_not_current_and_says_why(ward, at, monkeypatch, part) -> None:
    page = at("/")

    def locked(*_args):
        raise StoreUnavailable("the store cannot be used: database is locked")

    module = "node.web.lights" if part == "strip_of" else "node.web.pages"
    monkeypatch.setattr(f"{module}.{part}", locked)
    ward.app.state.lights = Lights(ward.node)
    pass_s(page, 20)
    refresh(page)
    until(page, lambda: "database is locked" in note(page))
    assert note(page) == (
        "Not current for more than 15 s: the store cannot be used: database is locked. What you see is old."
    )


def test_a_filter_that_is_not_understood_makes_nothing_old(at) -> None:
    page = at("/?state=NO")
    pass_s(page, 20)
    until(page, lambda: note(page))
    refresh(page)
    until(page, lambda: not note(page))


@pytest.mark.parametrize("event", ["timeout", "sendError"])
def test_a_verb_without_an_answer_may_be_done(ward, at, event) -> None:
    ward.department.held()
    page = at("/cases/1")
    page.execute_script(
        f"htmx.trigger(document.body, 'htmx:{event}', {{requestConfig: {{verb: 'post', triggeringEvent: null}}}})"
    )
    assert page.find_element(By.ID, "problem").text.startswith("No answer came, so it may be done or not")
    waits_ms = page.execute_script(
        "var found; document.addEventListener('htmx:beforeSend', e => { found = e.detail.xhr.timeout;"
        " e.preventDefault(); }); document.getElementById('do-release').click(); return found;"
    )
    assert waits_ms >= 60_000  # a large series is written anew file by file
