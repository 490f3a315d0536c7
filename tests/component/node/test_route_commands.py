"""What a site reads of its routes: before a scan comes, of a job that took one, and of settings that cannot work."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import models
from config.load import ConfigError, load_settings
from config.routes import RouteSettings
from config.settings import DestinationSettings, ModelSettings, PeerSettings, ScpSettings, Settings
from node.bootstrap import constancy
from node.bootstrap.bundles import bundle_label, bundles_in_use, verified_cards
from node.bootstrap.routes import found_request, request_maker, routes_of
from node.dicom.headers import read_header
from node.operate.situation import facts
from node.ops.route_checks import check_routes
from node.receive.routing import Call
from tests.builders import make_series
from tests.departments import Department

Run = Callable[..., tuple[int, str, str]]
ROUTES = """
[[destination]]
name = "tps2"
ae_title = "TPS2"
host = "127.0.0.1"
port = 1
[scp]
more_ae_titles = ["SYNCECT_NECK"]
[[route]]
name = "neck"
called_ae = ["SYNCECT_NECK"]
bundle = "demo"
destinations = ["tps2"]
[[route]]
name = "named"
rules = [{ keyword = "PatientName", op = "equals", values = ["Other^Person"] }]
[[route]]
name = "pelvis"
rules = [{ keyword = "BodyPartExamined", op = "one_of", values = ["PELVIS"] }]
"""


@pytest.fixture
def routes(config: Path) -> Settings:
    config.write_text(config.read_text() + ROUTES)
    return load_settings(config)


def sender_route(*callers: str, **known: Any) -> Settings:
    return Settings(
        destination=(DestinationSettings(name="sim", ae_title="CTSIM2", host="h"),),
        route=(RouteSettings(name="back", calling_ae=callers, destinations=("@sender",)),),
        **known,
    )


# -- before a scan comes -----------------------------------------------------------------------------------------------


def test_the_tester_says_which_route_and_why_not_another_without_patient_data(
    run: Run, routes: Settings, tmp_path: Path
) -> None:
    make_series(tmp_path / "scan", slices=8, patient_name="Secret^Person")
    code, said, _ = run("rules", "test", tmp_path / "scan", "--json")
    (row,) = json.loads(said)["series"]
    assert (code, row["verdict"], row["route"], row["bundle"]) == (0, "ACCEPT", "", "demo-1step")
    assert row["destinations"] == ["tps", "tps2"]
    assert [(one["route"], one["found"], one["slices"]) for one in row["not_taken"]] == [
        ("neck", "SYNCECT", 0),
        ("named", "… (--phi shows it)", 8),
        ("pelvis", "CHEST", 8),
    ]
    assert "Secret" not in said
    assert "Secret^Person" in run("rules", "test", tmp_path / "scan", "--phi")[1]
    shown = run("rules", "test", tmp_path / "scan", "--called-ae", "SYNCECT_NECK")[1]
    assert "route neck: called as SYNCECT_NECK" in shown
    assert "tps2" in shown


def test_the_tester_has_exit_codes_for_no_series_and_for_a_title_that_nobody_can_call(
    run: Run, routes: Settings, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert run("rules", "test", tmp_path / "empty")[0] == 3
    code, _, said = run("rules", "test", tmp_path / "empty", "--called-ae", "OTHER")
    assert (code, "SYNCECT or SYNCECT_NECK, not OTHER" in said) == (2, True)


def test_the_bundles_in_use_are_listed_and_asked_about(run: Run, routes: Settings, department: Department) -> None:
    rows = {row["name"]: row["used_by"] for row in json.loads(run("models", "ls", "--json")[1])}
    assert (rows["demo"], rows["demo-1step"]) == (["bundle of route neck"], ["model.bundle"])
    found = facts(replace(department.node, settings=routes))
    assert [(one["bundle"], one["used_by"]) for one in found["bundles_of_routes"]] == [("demo", "bundle of route neck")]
    assert (found["routes"], found["more_ae_titles"]) == (["neck", "named", "pelvis"], ("SYNCECT_NECK",))


def test_a_constancy_run_is_about_a_bundle_in_use(run: Run, routes: Settings, department: Department) -> None:
    code, _, said = run("qa", "run", "--offline", "--bundle", "other")
    assert (code, "translates with demo-1step and demo, and not with other" in said) == (3, True), said
    node = replace(department.node, settings=routes)
    demo, main = (bundle_label(models.read_card(models.find_bundle(name))) for name in ("demo", "demo-1step"))
    assert constancy._command(node, demo) == "`syncect qa run --bundle demo`"
    assert constancy._command(node, main) == "`syncect qa run`"


# -- of a job ----------------------------------------------------------------------------------------------------------


def test_a_job_shows_its_route_and_why_it_was_taken(run: Run, routes: Settings, department: Department) -> None:
    why = "route neck: called as SYNCECT_NECK"
    case_id = department.held(route={"route": "neck", "destinations": ("tps2",), "why": why})
    shown = json.loads(run("jobs", "show", case_id, "--json")[1])
    assert (shown["route"], shown["destinations"], shown["called_ae"]) == ("neck", ["tps2"], "")
    assert f"It was queued with bundle demo 1 (abc); {why}." in " ".join(run("jobs", "why", case_id)[1].split())
    assert "tps2" in run("jobs", "show", case_id)[1]
    assert "sends it to tps2," in " ".join(run("jobs", "why", case_id)[1].split())


def test_a_job_without_routes_says_nothing_of_them(run: Run, department: Department) -> None:
    case_id = department.held()
    assert "queued with" not in run("jobs", "why", case_id)[1]
    assert "\nroute " not in run("jobs", "show", case_id)[1]


def test_what_returns_to_a_sender_without_a_destination_stays_until_there_is_one(
    run: Run, config: Path, department: Department
) -> None:
    case_id = department.held(route={"route": "back", "destinations": ("@CTSIM2",)})
    code, _, said = run("jobs", "release", case_id, "--reason", "ok")
    assert (code, "no destination has its AE title, CTSIM2" in " ".join(said.split())) == (4, True)
    assert "Add a [[destination]] with this AE title" in " ".join(run("jobs", "why", case_id)[1].split())
    more = '[[destination]]\nname = "sim2"\nae_title = "CTSIM2"\nhost = "127.0.0.1"\nport = 1\n'
    config.write_text(config.read_text() + more)
    code, _, said = run("jobs", "release", case_id, "--reason", "ok")
    assert (code, "it goes to sim2" in said) == (0, True), said
    assert [view.destination for view in department.node.overview.case(case_id).deliveries] == ["sim2"]


# -- what cannot work --------------------------------------------------------------------------------------------------


def test_a_route_whose_bundle_cannot_be_used_stops_the_start_and_is_named() -> None:
    settings = Settings(route=(RouteSettings(name="neck", bundle="no-such-bundle"),))
    with pytest.raises(ConfigError, match="bundle of route neck = 'no-such-bundle' cannot be used"):
        verified_cards(settings)
    assert [one.name for one in bundles_in_use(Settings(route=(RouteSettings(name="a", bundle="demo-1step"),)))] == [
        "demo-1step"
    ]


def test_a_rule_of_a_route_that_cannot_work_is_named() -> None:
    route = RouteSettings.model_validate({"name": "neck", "rules": [{"keyword": "BodyPart", "op": "equals"}]})
    with pytest.raises(ConfigError, match=r"route\.0\.rules\.0 cannot be used: rule on 'BodyPart'"):
        routes_of(Settings(route=(route,)))


def test_a_known_sender_without_a_destination_is_a_mistake_and_a_possible_one_a_warning() -> None:
    (found,) = check_routes(sender_route("CTSIM2", "CTSIM9"))
    assert (found.is_mistake, found.text) == (
        True,
        "route back returns results to the sender (@sender), and no destination has the AE title CTSIM9",
    )
    peers = ScpSettings(allowed_peers=(PeerSettings(ae_title="CTSIM2"), PeerSettings(ae_title="CTSIM3")))
    (found,) = check_routes(sender_route(scp=peers))
    assert (found.is_mistake, "CTSIM3, so what they send by this route is HELD" in found.text) == (False, True)
    assert list(check_routes(sender_route("CTSIM2"))) == []


def test_a_route_that_nothing_can_take_is_a_warning() -> None:
    peers = ScpSettings(allowed_peers=(PeerSettings(ae_title="CTSIM"),))
    routes = (RouteSettings(name="all"), RouteSettings(name="late", calling_ae=("OTHER",)))
    said = [found.text for found in check_routes(Settings(scp=peers, route=routes))]
    assert said == [
        "route late is never taken: route all before it takes every series",
        "route late: scp.allowed_peers does not let OTHER send",
    ]


# -- what a series gets ------------------------------------------------------------------------------------------------


@pytest.fixture
def headers(tmp_path: Path) -> Any:
    return [read_header(path, keywords=("BodyPartExamined",)) for path in make_series(tmp_path / "one", slices=3)]


def test_a_constancy_run_takes_no_route_and_gets_the_bundle_that_it_is_about(headers: Any) -> None:
    settings = Settings(
        model=ModelSettings(bundle="demo-1step"),
        destination=(DestinationSettings(name="tps", ae_title="TPS", host="h"),),
        route=(RouteSettings(name="all", bundle="demo", destinations=("tps",)),),
    )
    cards = verified_cards(settings)
    by_route = request_maker(settings, cards)(headers, Call("SYNCECT", "CTSIM"))
    assert (by_route.route, by_route.bundle, by_route.destinations) == ("all", bundle_label(cards["demo"]), ("tps",))
    for name in ("demo", "demo-1step"):
        of_run = request_maker(settings, cards, digest_of_run=lambda _uid, name=name: cards[name].digest)  # type: ignore[misc]
        request = of_run(headers, Call("SYNCECT", "CTSIM"))
        assert (request.route, request.bundle, request.destinations) == ("", bundle_label(cards[name]), ())
    assert len({by_route.key, request.key}) == 2, "the bundle is part of the key"


def test_a_result_that_is_found_in_the_spool_has_a_route_only_where_no_title_is_needed_to_know_it(headers: Any) -> None:
    getting = (DestinationSettings(name="tps", ae_title="TPS", host="h"),)
    by_header = RouteSettings(name="all", bundle="demo", destinations=("tps",))
    card = models.read_card(models.find_bundle("demo"))
    for routes, expected in (
        ((by_header,), ("all", ("tps",))),
        ((RouteSettings(name="neck", calling_ae=("CTSIM2",)), by_header), ("", ())),
    ):
        settings = Settings(destination=getting, route=routes)
        found = found_request(settings, verified_cards(settings), card, headers)
        assert (found.route, found.destinations) == expected
        assert found.bundle == bundle_label(card)
