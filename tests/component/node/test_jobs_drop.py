"""`jobs drop` takes out of a series what one AE title sent; `jobs show` names who owns it."""

import json

import pytest

from node.dicom.constants import CT_IMAGE_STORAGE
from storage.series import Arrival, Receipt
from tests.departments import START


def add(department, case_id: str, ae: str, number: int = 7) -> None:
    """One more instance of a series, from another AE title."""
    uids = (f"1.2.{case_id}", f"1.2.3.{case_id}", f"1.2.3.{case_id}.{number}", CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1")
    arrival = Arrival(*uids, f"{number:064}", f"received/{ae}-{number}.dcm", 1)
    association = department.node.series.open_association("r", ae, "h", START)
    receipt = Receipt(association, ae, arrival, START, takes_foreign=True)
    department.node.series.record_group([receipt])
    department.node.series.close_association(association, released=True, now=START)


@pytest.fixture
def shared(department) -> str:
    """A series of CTSIM to which WORKSTATION added one instance."""
    case_id: str = department.arrive()
    add(department, case_id, "WORKSTATION")
    return case_id


def test_the_owner_and_who_added_to_a_series_are_shown(run, shared) -> None:
    text = run("jobs", "show", shared)[1]
    assert "owner" in text
    assert "also from" in text
    assert "WORKSTATION: 1 of the instances" in text
    shown = json.loads(run("jobs", "show", shared, "--json")[1])
    assert shown["owner"] == {"calling_ae": "CTSIM", "certificate": "", "others": {"WORKSTATION": 1}}


def test_what_one_title_sent_is_dropped(run, department, shared) -> None:
    code, _, err = run("jobs", "drop", shared, "--from", "WORKSTATION", "--yes", "--reason", "sent by mistake")
    assert code == 0
    assert err == "1: dropped; 1 instance from WORKSTATION, which adds no more; the series belongs to CTSIM\n"
    assert department.node.overview.case(shared).slices.received == 3
    assert "WORKSTATION dropped: sent by mistake" in run("jobs", "events", shared)[1]
    again = ("jobs", "drop", shared, "--from", "WORKSTATION", "--forget")
    assert run(*again)[2] == "1: allowed; WORKSTATION may send for it again\n"
    assert run(*again)[0] == 4, "once"


def test_a_series_is_freed_for_its_true_sender(run, department, shared) -> None:
    run("jobs", "drop", shared, "--from", "WORKSTATION", "--yes")
    _, _, err = run("jobs", "drop", shared, "--from", "CTSIM", "--yes")
    assert err == "1: dropped; 3 instances from CTSIM, which adds no more; the series belongs to who sends it next\n"
    assert department.node.overview.case(shared).slices.received == 0


def test_dropping_asks_and_can_be_tried(run, department, shared) -> None:
    assert run("jobs", "drop", shared, "--from", "WORKSTATION")[0] == 2
    assert "would be dropped" in run("jobs", "drop", shared, "--from", "WORKSTATION", "--dry-run")[2]
    assert run("jobs", "drop", shared, "--yes")[0] == 2
    assert department.node.overview.case(shared).slices.received == 4


def test_a_title_that_sent_nothing_is_refused_with_those_that_did(run, shared) -> None:
    code, _, err = run("jobs", "drop", shared, "--from", "PACS", "--yes")
    assert code == 4
    assert "no instance of this series came from PACS; its instances came from CTSIM, WORKSTATION" in err
