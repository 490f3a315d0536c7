"""A physicist follows a real series in the browser: it arrives, is held, is looked at, released and sent again."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import models
from node.dicom.constants import CT_IMAGE_STORAGE
from tests.chromium import chromium, complaints, serious
from tests.slice.checks import assert_derived_from, assert_no_dciodvfy_errors, assert_same_grid
from tests.slice.harness import RunningNode, StoreScp, free_port, wait_for

KEPT = os.environ.get("STORY_PICTURES")  # where the screenshots are kept
SLICES = 64 if KEPT else 24  # of 64: every step is the same for fewer
WITHIN_S = float(os.environ.get("STORY_WITHIN_S", "40"))  # the demo bundle takes minutes where others work too
PASSWORD = "correct horse battery"
REASON = "The noise is that of a thin reconstruction; vessels and heart look right on every slice."


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """STORY_PICTURES, or a folder of the test."""
    folder = Path(KEPT or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def doubtful_bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A bundle whose training had less noise than any real scan has, so that its results are held."""
    named = os.environ.get("STORY_BUNDLE")
    source = models.find_bundle(named) if named else tiny_bundle
    target = tmp_path / "doubtful"
    shutil.copytree(source, target)
    card = json.loads((target / "bundle.json").read_text(encoding="utf-8"))
    card["envelope"]["noise_hu"] = [0.5, 1.0]
    (target / "bundle.json").write_text(json.dumps(card), encoding="utf-8")
    return target


def scan(series: Path, folder: Path) -> list[Path]:
    """So many slices from one end of a series, in a folder of their own."""
    folder.mkdir()
    files = sorted(series.iterdir(), key=lambda path: float(dcmread(path).ImagePositionPatient[2]))[:SLICES]
    return sorted(Path(shutil.copy(path, folder)) for path in files)


@contextmanager
def scanner(port: int) -> Iterator[Association]:
    """An association of a CT simulator, open as long as its scan lasts."""
    entity = AE(ae_title="CTSIM")
    entity.add_requested_context(CT_IMAGE_STORAGE, ImplicitVRLittleEndian)  # as its files are
    association = entity.associate("127.0.0.1", port, ae_title="SYNCECT")
    assert association.is_established
    yield association
    association.release()


class Reader:
    """A person at the browser: sees, clicks, types, and keeps a picture of what is there."""

    def __init__(self, browser: Chrome, address: str, pictures: Path) -> None:
        self.browser, self.address, self._pictures = browser, address, pictures
        self._waiting = WebDriverWait(browser, WITHIN_S, 0.1)

    def goes_to(self, path: str) -> None:
        self.browser.get(self.address + path)

    def sees(self, selector: str, text: str) -> None:
        """Wait until an element shows this text; it may be replaced at any moment."""
        script = "return [...document.querySelectorAll(arguments[0])].some(e => e.innerText.includes(arguments[1]))"
        try:
            self._waiting.until(lambda browser: browser.execute_script(script, selector, text), f"{text} in {selector}")
        except TimeoutException:
            self.browser.save_screenshot(str(self._pictures / "not-seen.png"))
            raise

    def clicks(self, selector: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def types(self, selector: str, text: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    def presses(self, *keys: str) -> None:
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    def sees_all_images(self) -> None:
        script = "const found = [...document.querySelectorAll('.review-pane img')].filter(e => e.offsetParent);" + (
            "return found.length > 0 && found.every(e => e.complete && e.naturalWidth > 100)"
        )
        self._waiting.until(lambda browser: browser.execute_script(script), "all images")

    def keeps(self, name: str) -> None:
        """Keep a picture of the page, which must be fit for everybody and must have lost nothing on its way."""
        self.browser.save_screenshot(str(self._pictures / f"{name}.png"))
        assert serious(self.browser) == []
        assert complaints(self.browser) == []


@pytest.fixture
def physicist(tmp_path: Path, pictures: Path) -> Iterator[Callable[[RunningNode, int], Reader]]:
    """Makes a user of a node and sits down at a browser."""
    with chromium(tmp_path / "profile") as browser:

        def sit_down(node: RunningNode, port: int) -> Reader:
            words = (
                "users",
                "add",
                "anna",
                "--role",
                "physicist",
                "--full-name",
                "Dr. Anna Müster",
                "--password-stdin",
            )
            command = [*node.command, *words]
            made = subprocess.run(command, input=f"{PASSWORD}\n", text=True, capture_output=True, check=False)
            assert made.returncode == 0, made.stderr
            return Reader(browser, f"http://127.0.0.1:{port}", pictures)

        yield sit_down


def test_a_real_series_is_followed_looked_at_released_and_sent_again(
    real_data: Path, node_at, tps, doubtful_bundle: Path, physicist, tmp_path: Path
) -> None:
    port = free_port()
    node = node_at(
        tps, bundle=doubtful_bundle, web=f"port = {port}", completion="quiet_s = 0.6\ngive_up_s = 60"
    ).start()
    anna = physicist(node, port)
    files = scan(real_data / "ct" / "philips_chest_ncct", tmp_path / "scan")
    count = len(files)

    wait_for("the page", lambda: answers(port))
    anna.goes_to("/")
    anna.keeps("1-login")
    anna.types("#name", "anna")
    anna.types("#password", PASSWORD)
    anna.presses(Keys.ENTER)
    anna.sees("#lights", "Receiver")

    with scanner(node.port) as association:
        for number, path in enumerate(files, 1):
            assert association.send_c_store(path).Status == 0x0000
            if number in (count // 3, count // 2):
                anna.sees("#row-1", "RECEIVING")
                anna.sees("#row-1 .count", f"{number} / 0")
        anna.keeps("2-arriving")
    anna.sees("#row-1 .state", "HELD")

    anna.presses("j", Keys.ENTER)
    anna.sees("#drawer-title", "Job 1")
    anna.sees("#drawer", "noise")
    anna.keeps("3-held")

    anna.clicks("#review-link")
    anna.sees_all_images()
    anna.sees(".review-where", f"slice {count // 2} of {count}, z = ")
    anna.keeps("4-images")
    anna.clicks(".review-pane img")
    anna.presses(Keys.HOME, Keys.ARROW_UP, Keys.ARROW_UP)
    anna.sees(".review-where", f"slice 3 of {count}")
    anna.clicks("input[name=curtain]")
    anna.sees_all_images()
    anna.keeps("5-one-over-the-other")

    anna.types("form[action$='/release'] textarea", REASON)
    anna.clicks("form[action$='/release'] button")
    anna.sees("#now", "SENT released, because: The noise is that of a thin reconstruction")
    anna.keeps("6-sent")
    assert_what_arrived(tps, files)

    tps.clear()
    anna.types("#reason", "The TPS lost it")
    anna.clicks("#do-resend")
    wait_for("all images at the TPS once more", lambda: len(tps.files()) == len(files))
    anna.sees("#now", "SENT")
    anna.keeps("7-sent-again")
    (case,) = node.wait_for_states("SENT")
    assert (case.slices.sent, case.slices.produced) == (count, count)
    trail = json.loads(node.run("audit", "ls", "--json").stdout)
    assert {"login", "release", "resend"} <= {row["action"] for row in trail}
    assert node.stop() == [0]


def assert_what_arrived(tps: StoreScp, files: list[Path]) -> None:
    """Every image at the TPS is derived from its source, says who released it and why, and lies on the same grid."""
    sources = {image.SOPInstanceUID: image for image in map(dcmread, files)}
    images = [dcmread(path) for path in tps.files()]
    assert len(images) == len(sources)
    for image in images:
        assert_derived_from(sources.pop(image.SourceImageSequence[0].ReferencedSOPInstanceUID), image)
        assert REASON in image.DerivationDescription
        assert "Dr. Anna Müster (anna)" in image.DerivationDescription
    assert_no_dciodvfy_errors(tps.files())
    assert_same_grid(files[0].parent, tps.folder)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
