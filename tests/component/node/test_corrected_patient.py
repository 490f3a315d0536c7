"""Images come again with another patient in their headers, through the node's own judge and stores."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from config.load import load_settings
from node.bootstrap.roles import make_completion
from node.bootstrap.store import open_store
from node.dicom.headers import read_header
from storage.jobs import ProducedInstance, ProducedSeries
from storage.series import Arrival
from tests.builders import make_series

T0 = datetime.now(UTC) - timedelta(hours=1)


class Bench:
    """A node that receives files and delivers results without a network and a model."""

    def __init__(self, node, folder):
        self.node, self.folder, self.completion = node, folder, make_completion(node)
        self.times = 0

    def receive(self, **scan):
        """Twelve slices arrive and are judged; the newest case."""
        self.times += 1
        now = T0 + timedelta(minutes=self.times)
        association = self.node.series.open_association("r", "CTSIM", "h", now)
        for path in make_series(self.folder / f"{self.times}", slices=12, **scan):
            header = read_header(path)
            data = f"{self.times:128}".encode() + path.read_bytes()[128:]  # other bytes, the same image
            name = self.node.spool.keep((data,), now)
            uids = (header.study_uid, header.series_uid, header.sop_instance_uid, header.sop_class_uid)
            arrival = Arrival(*uids, header.transfer_syntax_uid, sha256(data).hexdigest(), name, len(data))
            self.node.series.record(association, "CTSIM", arrival, now)
        self.node.series.close_association(association, released=True, now=now)
        assert self.completion.tick() == 1
        return self.node.overview.cases(limit=1)[0]

    def deliver(self):
        """The newest job is produced, and the peer accepts its only image."""
        job = self.node.jobs.claim("w", 60, datetime.now(UTC))
        product = ProducedSeries(f"9.{job.id}", "d", (ProducedInstance(f"9.{job.id}.1", "1", "1.dcm", "0" * 64),), {})
        now = datetime.now(UTC)
        self.node.jobs.finish(job.id, "w", product, destinations=["tps"], held_reason=job.doubt or None, now=now)
        delivery = self.node.outbox.claim("c", "tps", 60, now)
        self.node.outbox.record_accepted(delivery.id, "c", delivery.missing[0].product_id, 0, lease_s=60, now=now)
        self.node.outbox.finish_sent(delivery.id, "c", "", now)


@pytest.fixture
def bench(config, tmp_path):
    with open_store(load_settings(config)) as node:
        yield Bench(node, tmp_path / "scans")


def test_a_corrected_patient_is_a_doubt_and_the_first_result_needs_a_person(bench, caplog):
    bench.receive(patient_id="CANARY-34", patient_name="Jones^Canary")
    bench.deliver()
    case = bench.receive(patient_id="CANARY-1", patient_name="Right^Canary")
    assert (case.id, case.state, case.version) == ("1-2", "QUEUED", 2)
    assert case.doubt == (
        "the patient changed after a result was delivered: ...34 (J...) -> ...-1 (R...) (PatientID, PatientName)"
    )
    first = bench.node.overview.case("1")
    assert (first.state, first.leftovers) == ("SUPERSEDED", ("tps",))
    events = [row.reason for row in bench.node.overview.events(case)]
    assert not any("CANARY" in text.upper() for text in [*caplog.messages, *events])


def test_a_second_patient_in_a_study_is_a_doubt(bench):
    bench.receive()
    case = bench.receive(patient_id="OTHER-99", patient_name="Other^Person", edit=in_another_series)
    assert case.id == "2"
    assert "two patients: ...-1 (T...) in series 1 and ...99 (O...) in this one" in case.doubt


def test_a_second_series_of_the_patient_is_no_doubt(bench):
    bench.receive()
    assert bench.receive(edit=in_another_series).doubt == ""


def test_the_same_patient_again_is_the_same_job(bench):
    bench.receive()
    bench.deliver()
    assert bench.receive().state == "SENT"


@pytest.mark.parametrize("name", ["Test^Person^^", " Test ^Person==", "TEST^PERSON", "Test^Person=\u5c71^\u592a"])
def test_a_name_that_is_written_otherwise_is_no_other_patient(bench, name):
    bench.receive()
    bench.deliver()
    case = bench.receive(raw={"PatientName": name.encode(), "SpecificCharacterSet": b"ISO_IR 192"})
    assert case.doubt == ""
    assert case.state in ("SENT", "QUEUED"), "the same contents by PS3.5 6.2.1, or a second version of them"


def in_another_series(ds, z):
    ds.SeriesInstanceUID = f"{ds.SeriesInstanceUID}.9"
