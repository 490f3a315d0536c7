"""A worker loads the bundle that a job was queued for, a few at a time, and never another in its place."""

from typing import Any

import pytest

from node.beats import CANNOT_WORK
from node.translate.loaded import MOST_LOADED, Executors, ExecutorUnavailable


class Loader:
    """Opens executors and remembers how; `broken` and `forbidden` are why, by bundle ("" for that of the settings)."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, int]] = []
        self.said: list[str] = []
        self.broken: dict[str, str] = {}
        self.forbidden: dict[str, str] = {}
        self.executors = Executors(self.open, lambda one: self.forbidden.get(one.bundle, ""), self.said.append)

    def open(self, bundle: str, faults: int) -> Any:
        self.opened.append((bundle, faults))
        if bundle in self.broken:
            raise ExecutorUnavailable(self.broken[bundle])
        return Fake(bundle or "main")


class Fake:
    def __init__(self, bundle: str) -> None:
        self.bundle, self.description = bundle, f"{bundle} on nothing"


@pytest.fixture
def loader() -> Loader:
    return Loader()


def test_each_job_gets_its_own_bundle_and_it_is_loaded_once(loader: Loader) -> None:
    loader.executors.first(0)
    used = [loader.executors.of(bundle, 0).bundle for bundle in ("neck", "main", "neck", "main")]
    assert used == ["neck", "main", "neck", "main"]
    assert loader.opened == [("", 0), ("neck", 0)]
    assert loader.said == ["main on nothing"]


def test_only_a_few_stay_loaded_and_the_one_used_longest_ago_goes(loader: Loader) -> None:
    assert MOST_LOADED == 2
    loader.executors.first(0)
    for bundle in ("neck", "main", "brain"):
        loader.executors.of(bundle, 0)
    loader.opened.clear()
    loader.executors.of("main", 0)
    assert loader.opened == []
    loader.executors.of("neck", 0)
    assert loader.opened == [("neck", 0)]


def test_after_a_fault_of_the_device_a_bundle_is_loaded_anew_and_has_the_device_alone(loader: Loader) -> None:
    loader.executors.of("neck", 0)
    loader.executors.of("neck", 1)
    assert loader.opened == [("", 0), ("neck", 0), ("neck", 1)]
    loader.executors.of("main", 0)
    assert loader.opened[-1] == ("", 0), "what was loaded before the fault was given up"


def test_a_broken_bundle_of_a_route_stops_no_other(loader: Loader) -> None:
    loader.broken["neck"] = "its weights are damaged"
    with pytest.raises(ExecutorUnavailable, match="weights are damaged"):
        loader.executors.of("neck", 0)
    assert loader.executors.of("main", 0).bundle == "main"
    assert loader.said == ["main on nothing"], "the worker can work"


def test_a_broken_model_bundle_stops_no_job_of_a_route(loader: Loader) -> None:
    loader.broken[""] = "its weights are damaged"
    assert loader.executors.of("neck", 0).bundle == "neck"
    assert loader.said == [f"{CANNOT_WORK}its weights are damaged"]
    del loader.broken[""]
    assert loader.executors.of("main", 0).bundle == "main"
    assert loader.said[-1] == "main on nothing"


def test_a_bundle_that_may_not_be_used_is_asked_about_before_each_job(loader: Loader) -> None:
    loader.forbidden["neck"] = "nobody accepted it"
    with pytest.raises(ExecutorUnavailable, match="nobody accepted it"):
        loader.executors.of("neck", 0)
    assert loader.executors.of("main", 0).bundle == "main"
    loader.forbidden.clear()
    assert loader.executors.of("neck", 0).bundle == "neck"


def test_another_bundle_than_the_wanted_one_is_never_used(loader: Loader) -> None:
    loader.executors._open_executor = lambda _bundle, _faults: Fake("changed")  # type: ignore[assignment,return-value]
    with pytest.raises(ExecutorUnavailable, match="queued for bundle neck, but this worker has changed"):
        loader.executors.of("neck", 0)
