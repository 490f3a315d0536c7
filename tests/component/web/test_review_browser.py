"""The viewer in a browser: keys, wheel and slider turn the slices, and what cannot be shown says why."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from config.load import load_settings
from node.bootstrap.store import Node, open_store
from node.web.access import Person, Role
from node.web.review import router
from tests.builders import make_series
from tests.chromium import chromium, complaints, serious
from tests.component.web.imaged import receive, translate

SLICES = 14
STATIC = Path(__file__).parents[3] / "node" / "web" / "static"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("browsed")
    (folder / "data").mkdir(mode=0o700)
    (folder / "node.toml").write_text(f'[node]\ndata_dir = "{folder / "data"}"\n')
    with open_store(load_settings(folder / "node.toml")) as opened:
        receive(opened, make_series(folder / "source", slices=SLICES))
        translate(opened)
        yield opened


@pytest.fixture(scope="module")
def app(node: Node) -> FastAPI:
    """The page, as strict about scripts and styles as the product is."""
    app = FastAPI()
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.state.node, app.state.auditor = node, SimpleNamespace(note=lambda _entry, _study_uid: None)

    @app.middleware("http")
    async def log_in(request, call_next):
        request.state.person = Person("anna", "Dr. Anna Muster", Role.PHYSICIST, "t")
        request.state.address = "127.0.0.1"
        answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = "default-src 'self'"
        return answer

    return app


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """An application that browsers reach; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    started = threading.Event()
    begin = server.startup

    async def startup(*args, **kwargs):
        await begin(*args, **kwargs)
        started.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://localhost:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with serving(app) as where:
        yield where


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), width=1400, height=1200) as driver:
        yield driver


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> webdriver.Chrome:
    browser.get(f"{address}/cases/1/review")
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".review-marks li"))
    return browser


def until(browser: webdriver.Chrome, holds) -> None:
    WebDriverWait(browser, 10, poll_frequency=0.02).until(lambda _: holds())


def text(page: webdriver.Chrome, selector: str) -> str:
    return page.find_element(By.CSS_SELECTOR, selector).text


def shown(page: webdriver.Chrome) -> list[str]:
    """The addresses of the pictures that are on the page now; found at once, as the viewer exchanges its images."""
    addresses: list[str] = page.execute_script("return [...document.querySelectorAll('.review-under')].map(i => i.src)")
    return addresses


def at(page: webdriver.Chrome, number: int) -> None:
    """Every pane has come to this slice."""
    until(page, lambda: text(page, ".review-where").startswith(f"slice {number} of {SLICES}, z = "))
    assert all(f"/slices/{number}/" in address for address in shown(page))


def test_keys_turn_the_slices_and_change_the_window(page) -> None:
    at(page, 7)
    viewer = page.find_element(By.CSS_SELECTOR, ".review")
    for key, number in (
        (Keys.ARROW_UP, 8),
        (Keys.ARROW_DOWN, 7),
        (Keys.PAGE_UP, 14),
        (Keys.PAGE_DOWN, 4),
        (Keys.HOME, 1),
        (Keys.ARROW_DOWN, 1),
        (Keys.END, 14),
    ):
        viewer.send_keys(key)
        at(page, number)
    viewer.send_keys("4")
    until(page, lambda: "preset=bone" in shown(page)[0])
    page.find_element(By.NAME, "reason").send_keys("1")
    assert page.find_element(By.NAME, "preset").get_attribute("value") == "bone"


def test_wheel_slider_and_marks_turn_the_slices(page) -> None:
    turn = "document.querySelector('.review-frame').dispatchEvent(new WheelEvent('wheel', {deltaY: arguments[0]}))"
    for _ in range(3):
        page.execute_script(turn, -100)
    at(page, 10)
    page.execute_script(turn, 100)
    at(page, 9)
    page.find_element(By.CSS_SELECTOR, ".review-slice").send_keys(Keys.ARROW_RIGHT)
    at(page, 10)
    button = page.find_element(By.CSS_SELECTOR, ".review-marks button")
    button.click()
    at(page, int(button.text.split(":")[0].removeprefix("Slice ")))


def test_the_divider_uncovers_the_result_over_the_source(page) -> None:
    box = page.find_element(By.NAME, "curtain")
    box.click()
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, ".review-over"))
    assert not page.find_element(By.CSS_SELECTOR, '[data-layer="synthetic"]').is_displayed()
    assert "Right of it: synthetic" in text(page, '[data-layer="source"]')
    divider = page.find_element(By.CSS_SELECTOR, ".review-position")
    divider.send_keys(Keys.ARROW_LEFT)
    uncovered = "const over = document.querySelector('.review-over'); return [over.src, over.style.clipPath]"
    until(page, lambda: "49%" in page.execute_script(uncovered)[1])
    assert "/synthetic.png" in page.execute_script(uncovered)[0]
    at(page, 7)
    box.click()
    until(page, lambda: not page.find_elements(By.CSS_SELECTOR, ".review-over"))
    assert page.find_element(By.CSS_SELECTOR, '[data-layer="synthetic"] .review-under').is_displayed()


def test_hu_under_the_pointer(page) -> None:
    frame = page.find_element(By.CSS_SELECTOR, ".review-frame")
    webdriver.ActionChains(page).move_to_element(frame).perform()
    until(page, lambda: "difference 60 HU" in text(page, ".review-hu"))


def test_a_slice_that_cannot_be_shown_says_why_in_its_place(page, app, node, tmp_path) -> None:
    lost = sorted(node.spool.path(node.overview.case("1").product_dir).glob("*.dcm"))[11]
    shutil.move(lost, tmp_path / "kept.dcm")
    del app.state.review  # what others saw is in its memory
    try:
        page.find_element(By.CSS_SELECTOR, ".review").send_keys(Keys.HOME, Keys.PAGE_UP, Keys.ARROW_UP)
        pane = '[data-layer="synthetic"] .review-failed'
        until(page, lambda: text(page, pane).endswith("its file is no longer on the disk."))
        assert not text(page, '[data-layer="source"] .review-failed')
    finally:
        shutil.move(tmp_path / "kept.dcm", lost)


def test_the_browser_complains_of_nothing(page) -> None:
    said = [line for line in complaints(page) if "favicon" not in line]
    assert [line for line in said if "410" not in line and "no longer" not in line] == []
    assert serious(page) == []


def test_the_browser_keeps_no_picture_on_its_disk(address, tmp_path) -> None:
    with chromium(tmp_path) as driver:
        driver.get(f"{address}/cases/1/review")
        until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".review-marks li"))
        driver.find_element(By.CSS_SELECTOR, ".review").send_keys(Keys.ARROW_UP)
        at(driver, 8)
        pictures = [urlopen(url).read() for url in shown(driver)]
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"function viewerOf" in data for data in kept)  # what may be kept is
    assert not any(picture[50:250] in data for picture in pictures for data in kept)
