"""Settings files here say themselves whether a node has its page."""

import pytest


@pytest.fixture(autouse=True)
def _no_word_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNCECT_WEB__ENABLED", raising=False)
