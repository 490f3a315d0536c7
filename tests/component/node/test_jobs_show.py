"""`jobs show`, `why` and `events`: everything that is known, in the time of the department, and a true next step."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from node.dicom.derived_plan import SeriesOptions
from node.operate.cases import case_json
from node.ops.processes import process_lock
from storage.commitments import CommitmentReport
from storage.forecast import Expected
from storage.performed_steps import StepReport
from tests.builders import make_series
from tests.departments import START


def flat(text: str) -> str:
    return " ".join(text.split())


def test_show_tells_everything(run, department) -> None:
    case_id = department.held(doubt="metal artefact reduction (iMAR)", description="Thorax")
    assert run("jobs", "release", case_id, "-m", "seen by Dr Wu")[0] == 0
    department.refuse(2, series_uid="1.2.3.1")
    out = flat(run("jobs", "show", case_id)[1])
    for text in (
        "version 1",
        "doubt metal artefact reduction (iMAR)",
        "override HELD: looks enhanced. Released by operator",
        "seen by Dr Wu",
        "derived series number 301",
        "derived description sCE-CT AI …",
        "series 1 CT CHEST 2026-11-26 08:30",
        "to tps PENDING, 0/3 accepted, 0 confirmed, attempt 0",
        "refused 2 instances from CTSIM",
        "status C000, a UID has a leading zero",
        "job HELD -> PRODUCED by operator",
        "measured changed_share 0.25",
        "next step",
    ):
        assert text in out
    assert "Thorax" not in out
    asked = flat(run("jobs", "show", case_id, "--phi")[1])
    assert "derived description sCE-CT AI Thorax" in asked
    assert "description Thorax" in asked
    row = json.loads(run("jobs", "show", case_id, "--json")[1])
    assert row["facts"]["series_number"] == 1
    assert row["refused"][0]["count"] == 2
    assert row["events"][-1]["machine"] == "delivery"


def test_show_tells_what_the_scanner_said_of_its_step(run, department) -> None:
    case_id, steps = department.arrive(), department.node.steps
    for uid, ae in (("1.9.1", "CTSIM"), ("1.9.2", "OTHER")):
        steps.create(uid, ae, "", StepReport("IN PROGRESS", "1.2.1"), START)
    assert "performed step IN PROGRESS, this series is not listed; told by CTSIM" in flat(
        run("jobs", "show", case_id)[1]
    )
    told = StepReport("COMPLETED", series={"1.2.3.1": ["1.5", "1.6"]})
    steps.change("1.9.1", "CTSIM", "", told, scanners=("CTSIM",), now=START)
    out = flat(run("jobs", "show", case_id)[1])
    assert "performed step COMPLETED, 2 images listed; told by CTSIM" in out
    assert "OTHER" not in out
    (told,) = json.loads(run("jobs", "show", case_id, "--json")[1])["performed_steps"]
    assert (told["state"], told["images"], told["calling_ae"]) == ("COMPLETED", 2, "CTSIM")


@pytest.mark.parametrize(
    ("description", "version", "prefix", "shown"),
    [
        ("sCE-CT AI v2 Thorax native", 2, "sCE-CT AI", "sCE-CT AI v2 …"),
        ("sCE-CT AI v2", 2, " sCE-CT AI ", "sCE-CT AI v2"),
        ("sCE-CT AI", 1, "sCE-CT AI", "sCE-CT AI"),
        ("sCE-CT AI Thorax", 1, "another prefix", "…"),
        ("sCE-CT AIThorax", 1, "sCE-CT AI", "…"),
        ("", 1, "sCE-CT AI", ""),
    ],
)
def test_of_the_description_of_a_result_what_the_node_wrote_is_shown(
    department, description, version, prefix, shown
) -> None:
    case = replace(department.node.overview.case(department.held()), series_description=description, version=version)
    masked, asked = (case_json(case, Expected(), phi=phi, prefix=prefix) for phi in (False, True))
    assert (masked["derived_description"], asked["derived_description"]) == (shown, description)


@pytest.mark.parametrize("version", [1, 2, 99])
def test_what_the_node_writes_is_what_is_known_for_its_own(department, version) -> None:
    names = SeriesOptions()
    made = names.series_description("Thorax native", version)
    case = replace(department.node.overview.case(department.held()), series_description=made, version=version)
    shown = case_json(case, Expected(), phi=False, prefix=names.description_prefix)["derived_description"]
    assert shown == f"{names.series_description('', version)} …"


def test_show_tells_what_was_left_out_and_what_stands_at_a_tps(run, department) -> None:
    case_id = department.sent(remarks=["KVP of the source broke its VR and was left out", "PatientName was repaired"])
    run("jobs", "cancel", case_id, "--yes", "-m", "wrong")
    out = flat(run("jobs", "show", case_id)[1])
    assert "remark KVP of the source broke its VR and was left out" in out
    assert "remark PatientName was repaired" in out
    assert re.search(r"to tps SENT, 3/3 accepted, .* it still stands there", out)
    assert "delivered 3/3 to tps" in out
    run("jobs", "acknowledge", case_id)
    assert "a person has dealt with what stood there" in flat(run("jobs", "show", case_id)[1])


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/New_York"])
def test_people_read_the_time_of_the_department_and_programs_utc(run, department, config, zone) -> None:
    department.held()
    config.write_text(f'[node]\ntimezone = "{zone}"\n{config.read_text()}')
    local = f"{START.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S %Z}"
    assert local in run("jobs", "events", "1")[1]
    assert local in run("jobs", "show", "1")[1]
    assert json.loads(run("jobs", "events", "1", "--json")[1])[0]["at"].endswith("Z")


def test_text_of_a_peer_does_nothing_to_the_terminal(run, department) -> None:
    department.held("\x1b[31m[red]:boom:", description="[bold]\x1b]0;title\x07")
    for command in (("ls",), ("ls", "--phi"), ("show", "1"), ("show", "1", "--phi"), ("why", "1"), ("events", "1")):
        out = run("jobs", *command)[1]
        assert "\x1b" not in out
        assert "\x07" not in out
    assert "[red]:boom:" in run("jobs", "why", "1")[1]
    assert "[bold]" in run("jobs", "show", "1", "--phi")[1]


def test_why_knows_which_processes_live(run, department) -> None:
    department.queued()
    assert "Start `syncect serve`" in run("jobs", "why", "1")[1]
    with process_lock(department.node.run_dir, "work", "1") as describe:
        assert "a worker takes it next" in run("jobs", "why", "1")[1]
        describe("CANNOT WORK: there is no CUDA device")
        assert "The worker cannot translate: there is no CUDA device." in run("jobs", "why", "1")[1]
    assert "Start `syncect serve`" in run("jobs", "why", "1")[1]


def test_why_knows_which_destinations_are_left(run, department, config) -> None:
    department.send_failed()
    assert "Remove the cause at tps" in run("jobs", "why", "1")[1]
    config.write_text(config.read_text().replace('"tps"', '"other"'))
    out = run("jobs", "why", "1")[1]
    assert "tps is no longer a destination of the settings" in out
    assert "syncect jobs cancel 1" in out


def test_why_knows_since_when_a_peer_cannot_be_reached(run, department, config) -> None:
    config.write_text(f'[node]\ntimezone = "Europe/Berlin"\n{config.read_text()}')
    department.sending()
    department.node.peers.failed("tps", "connection refused", START)
    department.node.peers.failed("tps", "connection refused", START + timedelta(minutes=5))
    since = f"{START.astimezone(ZoneInfo('Europe/Berlin')):%Y-%m-%d %H:%M:%S %Z}"
    assert "its deliver process does not run" in run("jobs", "why", "1")[1]
    with process_lock(department.node.run_dir, "deliver", "1"):
        out = run("jobs", "why", "1")[1]
        assert f"tps cannot be reached since {since} (connection refused). The courier tries again by itself" in out
        department.node.peers.answered("tps", START)
        assert "tps has taken nothing since" in run("jobs", "why", "1")[1]


def test_why_does_not_advise_to_complete_what_has_a_gap(run, department, tmp_path) -> None:
    """The slices themselves are asked, not the words of the reason."""
    whole, gap = department.incomplete("the association was aborted"), department.incomplete()
    for case_id, missing in ((whole, ()), (gap, (5,))):
        names = put_into_spool(
            department, case_id, make_series(tmp_path / case_id, slices=12, missing=missing, seed=case_id)
        )
        assert names
    assert "`syncect jobs complete 1`" in run("jobs", "why", whole)[1]
    _, out, err = run("jobs", "why", gap)
    assert err == ""
    assert "would be refused, because" in out
    assert "`syncect jobs complete" not in out
    code, _, err = run("jobs", "complete", gap, whole)
    assert code == 4
    assert err.splitlines()[-1] == "1 refused, 1 completed"
    assert department.node.overview.case(whole).state == "RECEIVING"
    assert department.node.overview.case(gap).state == "INCOMPLETE"


def put_into_spool(department, case_id, paths):
    """Give the instances of a series these files."""
    from sqlalchemy import delete

    from node.dicom.headers import read_header
    from storage.tables import Instance, Series

    names = []
    with department.node.database.write() as session:
        series = session.get_one(Series, int(case_id))
        series.series_uid = read_header(paths[0]).series_uid
        session.execute(delete(Instance).where(Instance.series_id == series.id))
        for n, path in enumerate(paths):
            names.append(department.node.spool.keep((path.read_bytes(),), START))
            fields = {"sop_class_uid": "1.2", "transfer_syntax_uid": "1.2", "size_bytes": 1, "received_at": START}
            session.add(
                Instance(
                    series_id=series.id,
                    sop_instance_uid=f"7.{case_id}.{n}",
                    sha256=f"{case_id}{n:063}",
                    spool_name=names[-1],
                    is_current=True,
                    **fields,
                )
            )
    return names


def test_a_series_of_which_nothing_was_stored_cannot_be_completed(run, department) -> None:
    from sqlalchemy import delete

    from storage.tables import Instance

    case_id = department.incomplete("its only instance was refused")
    with department.node.database.write() as session:
        session.execute(delete(Instance))
    code, _, err = run("jobs", "complete", case_id)
    assert (code, "none of its instances was stored" in err) == (4, True)
    assert "would be refused, because none of its instances was stored." in run("jobs", "why", case_id)[1]


def test_show_tells_what_a_destination_did_not_commit_to_and_why_what_to_do(run, department) -> None:
    case_id, commitments = department.sent(), department.node.commitments
    commitments.ask(1, "2.25.1", again_at=START, now=START)
    assert "commitment of tps asked" in flat(run("jobs", "show", case_id)[1])
    failed = CommitmentReport("2.25.1", frozenset(), {"9.1.0": 0x0122, "9.1.2": 0x0122})
    commitments.report(failed, ["tps"], actor="r", pause=timedelta(0), now=START)
    out = flat(run("jobs", "show", case_id)[1])
    assert "the peer did not commit to 2 of 3 instances (2 with failure reason 0122)" in out
    assert "not committed by tps 9.1.0: failure reason 0122: the peer does not commit to this SOP class" in out
    found = json.loads(run("jobs", "show", case_id, "--json")[1])
    assert [one["sop_instance_uid"] for one in found["not_committed"]] == ["9.1.0", "9.1.2"]
    assert (found["commitments"][0]["outcome"], found["state"]) == ("ANSWERED", "SENT")
    assert f"`syncect jobs resend {case_id}`" in flat(run("jobs", "why", case_id)[1])
