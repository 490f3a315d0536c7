"""Query/Retrieve as a planner's workstation uses it: DCMTK and pynetdicom find and fetch what may be sent."""

import hashlib
import subprocess
import threading
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_STORE
from pynetdicom.dsutils import encode

from node.query import find
from node.query.index import Index
from node.query.scp import QueryScp
from node.query.service import PATIENT_FIND, PATIENT_GET, STUDY_FIND, STUDY_GET, STUDY_MOVE
from node.receive.admission import Places
from storage.jobs import JobStore, ProducedInstance, ProducedSeries
from storage.series import Arrival, JobRequest, SeriesFacts
from tests.peers.certificates import Certificates
from tests.peers.conftest import CT, EXPLICIT, FakeTps, MakeCt, StartQuery, Store
from tests.peers.measures import wait_until
from tests.peers.test_receiver_database import moved_away

Produce = Callable[..., list[str]]


@pytest.fixture
def produced(store: Store, make_ct: MakeCt, now: datetime) -> Produce:
    """A derived series of its own study, with files as a worker leaves them; returns its SOP Instance UIDs."""

    def run(key: str, *, count: int = 3, held: str | None = None, **elements: Any) -> list[str]:
        study, source, derived = f"1.2.{ord(key)}", f"1.3.{ord(key)}", f"1.8.{ord(key)}"
        arrival = Arrival(study, source, f"1.4.{ord(key)}", CT, EXPLICIT, key * 64, f"received/{key}", 1)
        association = store.series.open_association("r", "SIM", "127.0.0.1", now)
        store.series.record(association, "SIM", arrival, now)
        store.series.close_association(association, released=True, now=now)
        (waiting,) = store.series.undecided(now, 0.0)
        assert store.series.queue(waiting, SeriesFacts("", ""), JobRequest(key, "demo"), now)
        job = store.jobs.claim("w", 60, now)
        assert job is not None
        staged, made = store.spool.stage(job.id, job.attempt), []
        given = {"StudyInstanceUID": study, "SeriesInstanceUID": derived, "StudyDate": "20260102", **elements}
        for number in range(count):
            uid, path = UID(f"1.9.{ord(key)}.{number + 1}"), staged / f"{number:04d}.dcm"
            ds = make_ct(instance=number + 1, fill=number, SOPInstanceUID=uid, SyntheticData="YES", **given)
            ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, uid
            ds.save_as(path, enforce_file_format=True)
            made.append(ProducedInstance(uid, "1.4.1", path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
        product = ProducedSeries(derived, store.spool.publish(staged), tuple(made), {})
        store.jobs.finish(job.id, "w", product, destinations=["tps"], held_reason=held, now=now)
        return [instance.sop_instance_uid for instance in made]

    return run


def associated(query: QueryScp, *contexts: str, images: bool = False, store: Any = None) -> Association:
    """An association as PLANNER; images: with the role of a Storage SCP, `store` answers each C-STORE."""
    ae = AE("PLANNER")
    ae.dimse_timeout = 20
    for uid in contexts:
        ae.add_requested_context(uid, EXPLICIT)
    roles: list[Any] = []
    if images:
        ae.add_requested_context(CT, EXPLICIT)
        roles = [build_role(CT, scp_role=True)]
    handlers: list[Any] = [(evt.EVT_C_STORE, store)] if store else []
    association = ae.associate("127.0.0.1", query.port, ae_title="SYNCECT", ext_neg=roles, evt_handlers=handlers)
    assert association.is_established
    return association


def asked(level: str, **keys: Any) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def found(query: QueryScp, identifier: Dataset, root: str = STUDY_FIND) -> tuple[list[Dataset], int]:
    """The matches, and the final status."""
    association = associated(query, root)
    answers = list(association.send_c_find(identifier, root))
    association.release()
    assert all(status.Status in (0xFF00, 0xFF01) for status, _ in answers[:-1])
    return [identifier for _, identifier in answers[:-1] if identifier is not None], answers[-1][0].Status


def data_sets(files: list[Path]) -> dict[str, bytes]:
    """The bytes of each data set by SOP Instance UID, without preamble and file meta information."""
    found = {}
    for file in files:
        ds = dcmread(file, stop_before_pixels=True)
        raw = file.read_bytes()
        found[str(ds.SOPInstanceUID)] = raw[132 + 12 + ds.file_meta.FileMetaInformationGroupLength :]
    return found


def originals(store: Store) -> dict[str, bytes]:
    return data_sets(sorted(store.spool.root.glob("derived/*/*.dcm")))


def test_a_planner_finds_a_series_and_fetches_it_with_dcmtk(
    store: Store,
    produced: Produce,
    start_query: StartQuery,
    tmp_path: Path,
    peer_program: Any,
    make_tps: Callable[..., FakeTps],
) -> None:
    uids = produced("a", PatientName="MÜLLER^EVA", PatientID="4711", SeriesDescription="sCE-CT AI")
    produced("b", PatientName="DOE^JANE", PatientID="4712")
    tps = make_tps()
    query = start_query(tps.destination())
    peer = ["-aet", "PLANNER", "-aec", "SYNCECT"]
    keys = ["-k", "0008,0052=SERIES", "-k", "0020,000d=1.2.97", "-k", "0020,000e=1.8.97"]

    asking = ["-k", "0008,0052=STUDY", "-k", "0010,0010=m*", "-k", "0020,000d", "-k", "0020,1208", "-k", "0008,0061"]
    text = _run([peer_program("/usr/bin/findscu"), "-S", *peer, *asking, "127.0.0.1", str(query.port)])
    assert "[1.2.97]" in text
    assert "1.2.98" not in text
    assert "[3 ]" in text
    assert "ISO_IR 100" in text

    fetched = tmp_path / "fetched"
    fetched.mkdir()
    _run([peer_program("/usr/bin/getscu"), "-S", "-B", *peer, *keys, "-od", str(fetched), "127.0.0.1", str(query.port)])
    moving = [peer_program("/usr/bin/movescu"), "-S", *peer, "-aem", "TPS", *keys, "127.0.0.1", str(query.port)]
    _run(moving)

    expected = {uid: data for uid, data in originals(store).items() if uid in uids}
    assert data_sets(list(fetched.iterdir())) == expected
    assert tps.stored == uids
    assert tps.datasets == expected


def test_answers_have_what_was_asked_for_in_the_character_set_of_the_object(
    produced: Produce, start_query: StartQuery
) -> None:
    produced("a", PatientName="MÜLLER^EVA", PatientID="4711", AccessionNumber="A1")
    query = start_query()
    identifier = asked("STUDY", PatientName="Müller^*", StudyID="", AccessionNumber="", PatientComments="", **_COUNTS)
    identifier.SpecificCharacterSet = "ISO_IR 192"  # of the query; the object has ISO_IR 100
    (answer,), status = found(query, identifier)
    assert status == 0x0000
    assert answer.SpecificCharacterSet == "ISO_IR 100"
    assert answer.PatientName == "MÜLLER^EVA"
    assert (answer.AccessionNumber, answer.StudyID, answer.StudyInstanceUID) == ("A1", "", "1.2.97")
    assert (answer.RetrieveAETitle, answer.InstanceAvailability) == ("SYNCECT", "ONLINE")
    assert (answer.NumberOfStudyRelatedSeries, answer.NumberOfStudyRelatedInstances) == (1, 3)
    assert answer.ModalitiesInStudy == "CT"
    assert "PatientComments" not in answer  # an optional key that is not supported (C.2.2.1.3)


_COUNTS = {"NumberOfStudyRelatedSeries": None, "NumberOfStudyRelatedInstances": None, "ModalitiesInStudy": ""}


def test_both_roots_and_all_levels(produced: Produce, start_query: StartQuery) -> None:
    uids = produced("a", PatientID="4711", SeriesNumber=301)
    produced("b", PatientID="4712")
    query = start_query()
    patients, _ = found(query, asked("PATIENT", PatientID="47*", NumberOfPatientRelatedStudies=None), PATIENT_FIND)
    assert sorted((one.PatientID, one.NumberOfPatientRelatedStudies) for one in patients) == [("4711", 1), ("4712", 1)]
    (study,), _ = found(query, asked("STUDY", PatientID="4711", StudyDate="20260101-20260131"), PATIENT_FIND)
    assert study.StudyInstanceUID == "1.2.97"
    (series,), _ = found(query, asked("SERIES", StudyInstanceUID="1.2.97", SeriesNumber="", Modality="CT"))
    assert (series.SeriesInstanceUID, series.SeriesNumber) == ("1.8.97", 301)
    whole = {"StudyInstanceUID": "1.2.97", "SeriesInstanceUID": "1.8.97"}
    images, _ = found(query, asked("IMAGE", **whole, InstanceNumber=""))
    assert [(one.SOPInstanceUID, one.InstanceNumber) for one in images] == [(uid, n + 1) for n, uid in enumerate(uids)]
    (image,), _ = found(query, asked("IMAGE", **whole, InstanceNumber="2"))
    assert image.SOPInstanceUID == uids[1]
    assert found(query, asked("STUDY", PatientID="47*"), PATIENT_FIND) == ([], 0xA900)
    assert found(query, asked("SERIES"))[1] == 0xA900


def test_nothing_is_found_that_may_not_be_sent(
    store: Store, produced: Produce, start_query: StartQuery, now: datetime, make_tps: Callable[..., FakeTps]
) -> None:
    produced("a", held="a person has to look")
    produced("b")
    produced("c")
    JobStore(store.database).cancel(2, actor="o", reason="r", now=now)
    store.spool.path("derived").joinpath("3-1").joinpath("0000.dcm").write_bytes(b"damaged")
    tps = make_tps()
    query = start_query(tps.destination())
    assert found(query, asked("STUDY", StudyInstanceUID="")) == ([], 0x0000)
    association = associated(query, STUDY_MOVE)
    (answer, _), *_ = association.send_c_move(asked("STUDY", StudyInstanceUID=["1.2.97", "1.2.98"]), "TPS", STUDY_MOVE)
    association.release()
    assert (answer.Status, tps.stored) == (0x0000, [])


def test_a_move_that_half_fails_says_how_many_and_which(
    store: Store, produced: Produce, start_query: StartQuery, make_tps: Callable[..., FakeTps]
) -> None:
    uids = produced("a", count=4)
    store.spool.path("derived/1-1/0003.dcm").write_bytes(b"damaged")
    seen: list[tuple[str, int]] = []
    tps = make_tps()
    tps.answer = lambda number: 0xC000 if number == 2 else 0x0000
    tps.on_request = lambda request: seen.append(
        (str(request.MoveOriginatorApplicationEntityTitle).strip(), int(request.MoveOriginatorMessageID))
    )
    association = associated(start_query(tps.destination()), STUDY_MOVE)
    answers = list(association.send_c_move(asked("STUDY", StudyInstanceUID="1.2.97"), "TPS", STUDY_MOVE, msg_id=77))
    association.release()
    counts = [
        (one.NumberOfRemainingSuboperations, one.NumberOfCompletedSuboperations, one.NumberOfFailedSuboperations)
        for one, _ in answers[:-1]
    ]
    assert counts == [(3, 1, 0), (2, 1, 1), (1, 2, 1), (0, 2, 2)]
    last, identifier = answers[-1]
    assert (last.Status, last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations) == (0xB000, 2, 2)
    assert identifier is not None
    assert list(identifier.FailedSOPInstanceUIDList) == [uids[1], uids[3]]
    assert tps.stored == [uids[0], uids[2]]
    assert seen == [("PLANNER", 77)] * 3


def test_a_destination_that_breaks_off_gets_no_more_and_the_rest_has_failed(
    produced: Produce, start_query: StartQuery, make_tps: Callable[..., FakeTps]
) -> None:
    uids = produced("a", count=4)
    tps = make_tps()
    tps.answer = lambda number: "abort" if number == 2 else 0x0000
    association = associated(start_query(tps.destination()), STUDY_MOVE)
    *_, (last, identifier) = association.send_c_move(asked("STUDY", StudyInstanceUID="1.2.97"), "TPS", STUDY_MOVE)
    association.release()
    assert (last.Status, last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations) == (0xB000, 1, 3)
    assert identifier is not None
    assert list(identifier.FailedSOPInstanceUIDList) == uids[1:]
    assert (tps.stored, tps.associations) == (uids[:1], 1)


def test_who_leaves_is_sent_nothing_more(
    produced: Produce, start_query: StartQuery, make_tps: Callable[..., FakeTps]
) -> None:
    produced("a", count=4)
    tps = make_tps()
    query = start_query(tps.destination())
    association = associated(query, STUDY_MOVE)

    def leave(number: int) -> int:
        association.abort(block=False)
        assert query._server is not None
        (served,) = query._server.running
        wait_until(lambda: bool(served.acse.is_aborted()) or not served.is_established)
        return 0x0000

    tps.answer, association.dimse_timeout = leave, 1.0
    list(association.send_c_move(asked("STUDY", StudyInstanceUID="1.2.97"), "TPS", STUDY_MOVE))
    assert query._server is not None
    assert query._server.wait_until_idle(20)
    assert len(tps.stored) == 1


@pytest.mark.parametrize("who", ["NOBODY", "QA", "TPS"])
def test_a_move_goes_to_destinations_of_results_only(
    produced: Produce, start_query: StartQuery, make_tps: Callable[..., FakeTps], who: str
) -> None:
    produced("a")
    tps = make_tps()
    qa = tps.destination(name="qa", ae_title="QA", receives="constancy")
    tps.stop()  # and one that is down is no success
    association = associated(start_query(qa, tps.destination()), STUDY_MOVE)
    answers = list(association.send_c_move(asked("STUDY", StudyInstanceUID="1.2.97"), who, STUDY_MOVE))
    association.release()
    assert [one.Status for one, _ in answers] == [0xA702 if who == "TPS" else 0xA801]
    assert tps.stored == []


def test_a_result_that_is_withdrawn_meanwhile_is_sent_no_further(
    store: Store, produced: Produce, start_query: StartQuery, now: datetime
) -> None:
    uids, got = produced("a", count=4), []

    def take(event: Any) -> int:
        got.append(str(event.request.AffectedSOPInstanceUID))
        if len(got) == 2:
            JobStore(store.database).cancel(1, actor="o", reason="r", now=now)
        return 0x0000

    association = associated(start_query(), STUDY_GET, images=True, store=take)
    *_, (last, _) = association.send_c_get(asked("STUDY", StudyInstanceUID="1.2.97"), STUDY_GET)
    association.release()
    assert (last.Status, last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations) == (0xB000, 2, 2)
    assert got == uids[:2]


def test_a_patient_is_fetched_and_no_other(produced: Produce, start_query: StartQuery) -> None:
    uids, got = produced("a", PatientID="4711"), []
    produced("b", PatientID="4712")
    query = start_query()

    def take(event: Any) -> int:
        got.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    association = associated(query, PATIENT_GET, images=True, store=take)
    wanted = [asked("PATIENT", PatientID="4711"), asked("STUDY", PatientID="4711", StudyInstanceUID="1.2.98")]
    ends = [list(association.send_c_get(one, PATIENT_GET))[-1][0] for one in wanted]
    refused = [asked("PATIENT", PatientID=key) for key in ("47*", "", ["4711", "4712"])]
    ends += [list(association.send_c_get(one, PATIENT_GET))[-1][0] for one in refused]
    association.release()
    assert [one.Status for one in ends] == [0x0000, 0x0000, 0xA900, 0xA900, 0xA900]
    assert got == uids


def test_an_association_that_is_served_keeps_its_place(
    produced: Produce, start_query: StartQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    produced("a", count=4)
    told: list[Any] = []
    monkeypatch.setattr(Places, "progressed", lambda places, session: told.append(session))
    association = associated(start_query(), STUDY_GET, images=True, store=lambda event: 0x0000)
    list(association.send_c_get(asked("STUDY", StudyInstanceUID="1.2.97"), STUDY_GET))
    association.release()
    assert len(told) >= 4


def test_a_get_needs_the_role_and_can_be_cancelled(store: Store, produced: Produce, start_query: StartQuery) -> None:
    produced("a", count=5)
    query, got = start_query(), []

    def take(event: Any) -> int:
        got.append(event.request.DataSet.getvalue())
        event.assoc.send_c_cancel(1, query_model=STUDY_GET)
        return 0x0000

    identifier = asked("STUDY", StudyInstanceUID="1.2.97")
    association = associated(query, STUDY_GET, images=True, store=take)
    answers = [one for one, _ in association.send_c_get(identifier, STUDY_GET)]
    association.release()
    assert answers[-1].Status == 0xFE00
    assert answers[-1].NumberOfCompletedSuboperations == len(got)
    assert answers[-1].NumberOfRemainingSuboperations == 5 - len(got)
    assert got[0] == next(iter(originals(store).values()))

    association = associated(query, STUDY_GET, PATIENT_GET)
    answers = [one for one, _ in association.send_c_get(identifier, STUDY_GET)]
    association.release()
    assert (answers[-1].Status, answers[-1].NumberOfFailedSuboperations) == (0xA702, 5)


def test_a_query_is_bounded_and_can_be_cancelled(
    produced: Produce, start_query: StartQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    produced("a")
    produced("b")
    query = start_query()
    monkeypatch.setattr(find, "MAX_ANSWERS", 1)
    matches, status = found(query, asked("STUDY", StudyInstanceUID=""))
    assert (len(matches), status) == (1, 0xA700)
    cancelled = threading.Event()
    cancelled.set()
    index = query._service.handlers[0][1].args[0]  # type: ignore[attr-defined]
    ends = find.answers(index, asked("STUDY"), find.looker(cancelled.is_set), patient_root=False, ae_title="SYNCECT")
    assert [one.Status for one, _ in ends if isinstance(one, Dataset)] == [0xFE00]
    late = find.looker(lambda: False, within_s=-1.0)
    ends = find.answers(index, asked("STUDY"), late, patient_root=False, ae_title="SYNCECT")
    assert [one.Status for one, _ in ends if isinstance(one, Dataset)] == [0xA700]


def test_a_find_on_the_wire_is_cancelled(
    produced: Produce, start_query: StartQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "abc":
        produced(key)
    query = start_query()
    association = associated(query, STUDY_FIND)
    came, may_go_on = threading.Event(), threading.Event()
    read = Index._header

    def slow(index: Index, series: Any) -> Any:
        if series.job_id == 1:  # the oldest, which is looked at last
            came.set()
            assert may_go_on.wait(20)
        return read(index, series)

    monkeypatch.setattr(Index, "_header", slow)

    def cancel() -> None:
        assert came.wait(20)
        association.send_c_cancel(1, query_model=STUDY_FIND)
        assert query._server is not None
        (served,) = query._server.running
        wait_until(lambda: bool(served.dimse.cancel_req))
        may_go_on.set()

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    answers = association.send_c_find(asked("STUDY", StudyInstanceUID=""), STUDY_FIND)
    assert [one.Status for one, _ in answers] == [0xFE00]
    association.release()
    cancelling.join()


def test_who_reads_nothing_keeps_no_other_from_asking(produced: Produce, start_query: StartQuery) -> None:
    produced("a")
    query, silent = start_query(), threading.Event()

    def take(event: Any) -> int:
        silent.wait(20)
        return 0x0000

    association = associated(query, STUDY_GET, images=True, store=take)
    waiting = threading.Thread(
        target=lambda: list(association.send_c_get(asked("STUDY", StudyInstanceUID="1.2.97"), STUDY_GET))
    )
    waiting.start()
    assert found(query, asked("STUDY", StudyInstanceUID="1.2.97"))[1] == 0x0000
    silent.set()
    waiting.join(20)
    association.release()


def test_images_and_other_messages_are_not_taken(produced: Produce, start_query: StartQuery, make_ct: MakeCt) -> None:
    query = start_query()
    ae = AE("PLANNER")
    ae.add_requested_context(CT, EXPLICIT)
    ae.add_requested_context(STUDY_FIND, EXPLICIT)
    association = ae.associate("127.0.0.1", query.port, ae_title="SYNCECT")
    assert [str(one.abstract_syntax) for one in association.accepted_contexts] == [STUDY_FIND]
    association.release()
    association = associated(query, STUDY_GET, images=True)
    image = next(one for one in association.accepted_contexts if one.abstract_syntax == CT)
    sent = C_STORE()
    sent.MessageID, sent.AffectedSOPClassUID, sent.AffectedSOPInstanceUID, sent.Priority = 1, CT, "1.2.3", 2
    sent.DataSet = BytesIO(encode(make_ct(), False, True) or b"")
    association.dimse.send_msg(sent, image.context_id or 0)
    association.join(20)
    assert association.is_aborted
    association = associated(query, STUDY_FIND)
    broken = BytesIO(b"\x08\x00\x52\x00SH\xff\xffnot so long")
    request = C_FIND()
    request.MessageID, request.AffectedSOPClassUID, request.Priority, request.Identifier = 1, STUDY_FIND, 2, broken
    association._reactor_checkpoint.clear()
    wait_until(lambda: association._is_paused)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id or 0)
    _, answer = association.dimse.get_msg(block=True)
    assert answer is not None
    assert answer.Status in (0xA900, 0xC000)
    association._reactor_checkpoint.set()
    association.release()


def test_without_a_database_a_query_is_answered_with_a700(
    store: Store, produced: Produce, start_query: StartQuery, sqlite_file: Path
) -> None:
    produced("a", PatientID="4711")
    query = start_query()
    mend = moved_away(sqlite_file)
    assert found(query, asked("STUDY", PatientID="4711")) == ([], 0xA700)
    mend()
    (answer,), status = found(query, asked("STUDY", PatientID="4711"))
    assert (answer.PatientID, status) == ("4711", 0x0000)


def test_dcmtk_asks_over_tls_and_strangers_do_not(
    produced: Produce, start_query: StartQuery, certificates: Certificates, peer_program: Any
) -> None:
    produced("a", PatientID="4711")
    query = start_query(tls=certificates.settings())
    peer = ["-S", "-aet", "PLANNER", "-aec", "SYNCECT", "-k", "0008,0052=STUDY", "-k", "0010,0020=47*"]
    where = ["-k", "0020,000d", "127.0.0.1", str(query.port)]
    for owner in ("node", "stranger"):
        certificate, key, _ = map(str, certificates.files(owner))
        tls = ["+tls", key, certificate, "+cf", str(certificates.files()[2])]
        command = [peer_program("/usr/bin/findscu"), *tls, *peer, *where]
        answered = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ("[1.2.97]" in answered.stdout + answered.stderr) == (owner == "node"), answered.stderr


def test_only_allowed_peers_ask(produced: Produce, start_query: StartQuery) -> None:
    query = start_query(allowed_peers=[{"ae_title": "CONSOLE"}])
    ae = AE("PLANNER")
    ae.add_requested_context(STUDY_FIND)
    assert ae.associate("127.0.0.1", query.port, ae_title="SYNCECT").is_rejected


def _run(command: list[str]) -> str:
    answer = subprocess.run([*command, "-v"], capture_output=True, text=True, timeout=30, check=False, errors="replace")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr
