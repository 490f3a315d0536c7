"""A physicist follows a real series in the browser: it arrives, is held, is looked at, released and sent again."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

import models
from tests.chromium import chromium, complaints, serious
from tests.slice.harness import RunningNode, free_port, wait_for

PASSWORD = "correct horse battery"
REASON = "The noise is that of a thin reconstruction; vessels and heart look right on every slice."


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where the screenshots are kept: SYNCECT_PICTURES, or a folder of the test."""
    folder = Path(os.environ.get("SYNCECT_PICTURES") or tmp_path / "pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def doubtful_bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A bundle whose training had less noise than any real scan has, so that its results are held."""
    named = os.environ.get("SYNCECT_STORY_BUNDLE")
    source = models.find_bundle(named) if named else tiny_bundle
    target = tmp_path / "doubtful"
    shutil.copytree(source, target)
    card = json.loads((target / "bundle.json").read_text(encoding="utf-8"))
    card["envelope"]["noise_hu"] = [0.5, 1.0]
    (target / "bundle.json").write_text(json.dumps(card), encoding="utf-8")
    return target


@contextmanager
def scanner(port: int) -> Iterator[Association]:
    """An association of a CT simulator, open as long as its scan lasts."""
    entity = AE(ae_title="CTSIM")
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", port, ae_title="SYNCECT")
    assert association.is_established
    yield association
    association.release()
