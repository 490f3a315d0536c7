"""A store, a receiver and small CT instances for tests that speak DICOM over a real socket."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer
from sqlalchemy import select

from config.settings import DestinationSettings, ScpSettings
from node.query.index import Index
from node.query.retrieve import Retriever
from node.query.scp import QueryScp
from node.receive.commitment import CommitmentReports, CommitmentService
from node.receive.mpps import StepService
from node.receive.performed_steps import StepPeers
from node.receive.receiver import Receiver
from storage.commitments import CommitmentStore
from storage.database import Database
from storage.jobs import JobStore, ProducedInstance, ProducedSeries
from storage.offered import OfferedStore
from storage.outbox import OutboxStore
from storage.peers import PeerStore
from storage.performed_steps import PerformedStepStore
from storage.refusals import RefusalStore
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore
from storage.spool import Spool
from storage.tables import Association, Delivery, DeliveryInstance, Instance, Job
from tests.peers.certificates import Certificates, make_certificates
from tests.peers.dicomweb_server import DicomwebServer
from tests.slice.harness import free_port as a_free_port

CT, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


DERIVED = {
    **dict.fromkeys(
        (
            *("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
            *("StudyID", "PositionReferenceIndicator", "AcquisitionNumber"),
        ),
        "",
    ),
    "SyntheticData": "YES",
    "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
    "FrameOfReferenceUID": "1.2.9",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "PixelSpacing": [1, 1],
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
    "SeriesNumber": 301,
    "PatientPosition": "HFS",
    "SliceThickness": 1,
    "KVP": 120,
    "Manufacturer": "syncect",
    "ManufacturerModelName": "syncect",
    "StationName": "SYNCECT",
    "DeviceSerialNumber": "0",
}
"""What a derived slice has beside the elements of `make_ct`."""


@dataclass(frozen=True)
class Store:
    """The durable side of a node in a temporary folder, with the queries that tests ask."""

    database: Database
    spool: Spool
    series: SeriesStore
    jobs: JobStore
    outbox: OutboxStore
    refusals: RefusalStore
    peers: PeerStore

    def instances(self) -> list[Instance]:
        with self.database.read() as session:
            return list(session.scalars(select(Instance).order_by(Instance.id)))

    def outcomes(self) -> list[str]:
        """How the recorded associations ended."""
        with self.database.read() as session:
            return list(session.scalars(select(Association.outcome).order_by(Association.id)))

    def delivery(self, destination: str = "tps") -> Delivery:
        with self.database.read() as session:
            return session.scalars(select(Delivery).where(Delivery.destination == destination)).one()

    def job(self) -> Job:
        with self.database.read() as session:
            return session.scalars(select(Job)).one()

    def statuses(self) -> list[int]:
        """What peers answered for the instances that count as delivered."""
        with self.database.read() as session:
            return list(session.scalars(select(DeliveryInstance.dimse_status).order_by(DeliveryInstance.product_id)))

    def unfinished(self) -> list[Path]:
        return list(self.spool.incoming.iterdir())

    def received(self) -> list[Path]:
        return sorted((self.spool.root / "received").rglob("*.dcm"))

    def derived(self) -> list[tuple[str, Path]]:
        """UID and file of each instance of the only series that `produce` made."""
        paths = sorted((self.spool.root / "derived").rglob("*.dcm"))
        return [(f"1.9.{ord('k')}.{number}", path) for number, path in enumerate(paths, 1)]


@pytest.fixture
def store(tmp_path: Path, sqlite_file: Path) -> Iterator[Store]:
    database = Database(f"sqlite:///{sqlite_file}")
    assert database.has_schema()  # its files beside the database are there from now on
    yield Store(
        database,
        Spool(tmp_path / "spool"),
        SeriesStore(database),
        JobStore(database),
        OutboxStore(database),
        RefusalStore(database),
        PeerStore(database),
    )
    database.close()


StartReceiver = Callable[..., Receiver]


@pytest.fixture
def start_receiver(store: Store) -> Iterator[StartReceiver]:
    """Start a receiver on a free port of the loopback; keywords go to ScpSettings, `series` replaces the store.

    reporting: destinations that report on storage commitment to it. paused: as in `Receiver`.
    """
    running: list[Receiver] = []

    def start(
        *,
        series: Any = None,
        max_dataset_bytes: int = 1 << 30,
        reporting: Sequence[DestinationSettings] = (),
        paused: Callable[[int], bool] = lambda _stored: False,
        **settings: Any,
    ) -> Receiver:
        scp = ScpSettings(host="127.0.0.1", **settings)
        reports = CommitmentReports(CommitmentStore(store.database), reporting, actor="receiver-1")
        commitment = CommitmentService(scp, reports).service()
        steps = StepService(PerformedStepStore(store.database), StepPeers(scp.allowed_peers)).service()
        receiver = Receiver(
            scp,
            store.spool,
            series or store.series,
            store.refusals,
            name="receiver-1",
            services=[*([commitment] if commitment else []), *([steps] if scp.mpps else [])],
            reporting=reports.destinations,
            paused=paused,
            port=0,
            max_dataset_bytes=max_dataset_bytes,
        )
        receiver.start()
        running.append(receiver)
        return receiver

    yield start
    for receiver in running:
        receiver.stop(grace_s=0.0)


MakeCt = Callable[..., Dataset]


@pytest.fixture
def make_ct() -> MakeCt:
    """Build one small CT instance; keywords overwrite or, with None, remove elements."""

    def make(*, instance: int = 1, fill: int = 0, **elements: Any) -> Dataset:
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID = generate_uid(entropy_srcs=["ct", str(instance)])
        ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
        ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
        ds.Modality = "CT"
        ds.PatientName = "CANARY^NAME"
        ds.PatientID = "CANARY-ID"
        ds.InstanceNumber = instance
        ds.ImagePositionPatient = [0, 0, instance]
        ds.Rows = ds.Columns = 64
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelData = np.full((64, 64), fill, np.int16).tobytes()
        for keyword, value in elements.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian)
        return ds

    return make


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeTps:
    """A storage SCP that behaves as told; `stored` lists the SOP Instance UIDs in the order in which it took them.

    `answer(number)` gives the status of the number-th C-STORE since the start, counted from 1; "abort" aborts, "stall"
    waits until the test ends.
    """

    def __init__(
        self,
        *,
        syntaxes: Sequence[str] = (EXPLICIT, IMPLICIT),
        sop_class: str = CT,
        tls: Any = None,
        also: Sequence[str] = (),
        questions: bool = True,
    ) -> None:
        self._tls = tls
        self.stored: list[str] = []
        self.datasets: dict[str, bytes] = {}
        self.associations = 0
        self.reject: tuple[int, int, int] | None = None
        self.answer: Callable[[int], Any] = lambda number: 0x0000
        self.listed: Callable[[], Sequence[str]] = lambda: self.stored
        self.counted: Callable[[], object] = lambda: None  # at SERIES level; None leaves the number out
        self.on_request: Callable[[Any], object] = lambda request: None  # gets every C-STORE request
        self.also_handles: list[Any] = []
        self.find: Callable[[Dataset], Iterator[tuple[int, Dataset | None]]] | None = None  # in place of the rest
        self.patients: Callable[[Dataset], Sequence[Mapping[str, str] | int]] = lambda asked: []  # at STUDY level
        self.released = threading.Event()
        self._asked = 0
        self._ae = AE(ae_title="TPS")
        for syntax in syntaxes:
            for accepted in (sop_class, *also):
                self._ae.add_supported_context(accepted, syntax)
        self._ae.add_supported_context(VERIFICATION)
        if questions:
            self._ae.add_supported_context(STUDY_ROOT_FIND)
        self._server: Any = None
        self.port = 0

    def start(self) -> None:
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            *self.also_handles,
        ]
        self._server = self._ae.make_server(
            ("127.0.0.1", self.port),
            evt_handlers=handlers,
            ssl_context=self._tls,
            server_class=ThreadedAssociationServer,
        )
        self._ae._servers.append(self._server)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.released.set()
        if self._server is not None:
            self._server = None
            for association in self._ae.active_associations:
                if association.is_rejected:  # pynetdicom aborts it below, which its state after a rejection forbids
                    association.join(60)
            self._ae.shutdown()

    def destination(self, **changes: Any) -> DestinationSettings:
        known: dict[str, Any] = {"name": "tps", "ae_title": "TPS", "host": "127.0.0.1", "port": self.port or 1}
        return DestinationSettings(**(known | changes))

    def _requested(self, event: Any) -> None:
        self.associations += 1
        if self.reject is not None:
            event.assoc.acse.send_reject(*self.reject)
            event.assoc.kill()

    def _store(self, event: Any) -> int:
        self._asked += 1
        self.on_request(event.request)
        answer = self.answer(self._asked)
        if answer == "abort":
            event.assoc.abort()
            return 0xC001
        if answer == "stall":
            self.released.wait(30)
            return 0xC001
        if answer == 0x0000 or 0xB000 <= answer <= 0xBFFF:
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
            self.datasets[self.stored[-1]] = event.request.DataSet.getvalue()
        return int(answer)

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if self.find is not None:
            yield from self.find(event.identifier)
            return
        if event.identifier.QueryRetrieveLevel == "STUDY":
            yield from self._find_patients(event.identifier)
            return
        if event.identifier.QueryRetrieveLevel == "SERIES":
            yield from self._find_series(event.identifier)
            return
        for uid in self.listed():
            found = Dataset()
            found.QueryRetrieveLevel = "IMAGE"
            found.StudyInstanceUID = event.identifier.StudyInstanceUID
            found.SeriesInstanceUID = event.identifier.SeriesInstanceUID
            found.SOPInstanceUID = uid
            yield 0xFF00, found

    def _find_patients(self, asked: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        for number, answer in enumerate(self.patients(asked)):
            if isinstance(answer, int):  # a status
                yield answer, None
                return
            found = Dataset()
            found.SpecificCharacterSet = "ISO_IR 192"
            found.QueryRetrieveLevel, found.StudyInstanceUID = "STUDY", f"1.2.{number}"
            for keyword, value in ({"PatientID": asked.PatientID} | dict(answer)).items():
                setattr(found, keyword, value)
            yield 0xFF00, found

    def _find_series(self, asked: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        if self.counted() is None and not self.listed():
            return
        found = Dataset()
        found.QueryRetrieveLevel = "SERIES"
        found.StudyInstanceUID, found.SeriesInstanceUID = asked.StudyInstanceUID, asked.SeriesInstanceUID
        if self.counted() is not None:
            found.NumberOfSeriesRelatedInstances = self.counted()
        yield 0xFF00, found


@pytest.fixture
def make_tps() -> Iterator[Callable[..., FakeTps]]:
    """Start fake TPSs; all are stopped at the end of the test."""
    made: list[FakeTps] = []

    def make(*, running: bool = True, **options: Any) -> FakeTps:
        tps = FakeTps(**options)
        made.append(tps)
        if running:
            tps.start()
        return tps

    yield make
    for tps in made:
        tps.stop()


@pytest.fixture
def produce(store: Store, make_ct: MakeCt, now: datetime) -> Callable[..., list[str]]:
    """Bring one series to PRODUCED through the stores; returns the SOP Instance UIDs of the derived series.

    `elements` overwrite or, with None, remove elements of its files.
    """

    def run(count: int = 4, *, destinations: Sequence[str] = ("tps",), key: str = "k", **elements: Any) -> list[str]:
        arrival = Arrival("1.2", f"1.3.{ord(key)}", "1.4", CT, EXPLICIT, key * 64, f"received/{key}", 1)
        association = store.series.open_association("r", "SIM", "127.0.0.1", now)
        store.series.record(association, "SIM", arrival, now)
        store.series.close_association(association, released=True, now=now)
        (waiting,) = store.series.undecided(now, 0.0)
        assert store.series.queue(waiting, SeriesFacts("", ""), JobRequest(key, "demo"), now)
        job = store.jobs.claim("w", 60, now)
        assert job is not None
        staged = store.spool.stage(job.id, job.attempt)
        made = []
        wanted = {key: value for key, value in (DERIVED | elements).items() if value is not None or key not in DERIVED}
        for number in range(count):
            uid = UID(f"1.9.{ord(key)}.{number + 1}")
            ds = make_ct(instance=number, fill=number, SOPInstanceUID=uid, **wanted)
            ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
            ds.file_meta.MediaStorageSOPInstanceUID = uid
            ds.save_as(staged / f"{number:04d}.dcm", enforce_file_format=True)
            digest = hashlib.sha256((staged / f"{number:04d}.dcm").read_bytes()).hexdigest()
            made.append(ProducedInstance(uid, f"1.4.{number}", f"{number:04d}.dcm", digest))
        product = ProducedSeries(f"1.8.{ord(key)}", store.spool.publish(staged), tuple(made), {})
        store.jobs.finish(job.id, "w", product, destinations=destinations, held_reason=None, now=now)
        return [instance.sop_instance_uid for instance in made]

    return run


@pytest.fixture
def make_dicomweb() -> Iterator[Callable[..., DicomwebServer]]:
    """Start servers that speak DICOMweb; they end with the test."""
    made: list[DicomwebServer] = []

    def make(**options: Any) -> DicomwebServer:
        made.append(DicomwebServer(**options))
        return made[-1]

    yield make
    for server in made:
        server.stop()


StartQuery = Callable[..., QueryScp]


@pytest.fixture
def start_query(store: Store) -> Iterator[StartQuery]:
    """Start the Query/Retrieve SCP on a free port; destinations: where a C-MOVE may send to."""
    running: list[QueryScp] = []

    def run(*destinations: DestinationSettings, **settings: Any) -> QueryScp:
        scp = ScpSettings(host="127.0.0.1", ae_title="SYNCECT", **settings).model_copy(update={"port": 0})
        offered = OfferedStore(store.database)
        index = Index(offered, store.spool)
        query = QueryScp(scp, index, Retriever(index, offered, store.spool, destinations, "SYNCECT"))
        query.start()
        running.append(query)
        return query

    yield run
    for one in running:
        one.stop(grace_s=0.0)


@pytest.fixture
def peer_program() -> Callable[[str], str]:
    """Path of a DICOM program by its absolute path; absent, it skips the test, or fails it where peers are demanded."""

    def find(path: str) -> str:
        if Path(path).exists():
            return path
        if os.environ.get("SYNCECT_REQUIRE_PEERS"):
            pytest.fail(f"{path} is not installed")
        pytest.skip(f"{path} is not installed")

    return find


@pytest.fixture
def free_port() -> int:
    """A port that was free a moment ago, for programs that cannot bind port 0."""
    return a_free_port()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    program = "/usr/bin/openssl"
    if not Path(program).exists():
        pytest.skip("openssl is not installed")
    return make_certificates(tmp_path_factory.mktemp("tls"), program)
