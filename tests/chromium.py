"""Chromium as a person uses it, driven by selenium, and axe-core's judgement of what it shows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver import Chrome

from tests.conftest import require_program

_AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"
WIDTH, HEIGHT = 1366, 768  # of an old ward PC


@contextmanager
def chromium(folder: Path, *, width: int = WIDTH, height: int = HEIGHT) -> Iterator[Chrome]:
    """A browser with a profile of its own and nothing but the page to talk to."""
    program = require_program("chromium")
    driver = require_program("chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--lang=en"),
        *(f"--window-size={width},{height}", f"--user-data-dir={folder}"),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.set_window_size(width, height)
        browser.set_page_load_timeout(30)
        yield browser
    finally:
        browser.quit()


def complaints(browser: Chrome) -> list[str]:
    """What the browser's console holds: refused scripts and styles, errors, files that were not found."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def serious(browser: Chrome) -> list[str]:
    """What axe-core finds serious or critical on the page that is shown (WCAG 2.1 A and AA, best practices)."""
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.execute_script(_AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = browser.execute_async_script(
        "const done = arguments[0]; axe.run(document).then(done, error => done({failed: String(error)}));"
    )
    assert "violations" in found, found
    assert found["passes"], "axe-core looked at nothing"
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {json.dumps([node['html'][:120] for node in one['nodes']][:3])}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
