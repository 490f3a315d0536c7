"""How fast a derived series is delivered, beside DCMTK's storescu with the same files and the same receiver."""

import statistics
from datetime import UTC, datetime
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from sqlalchemy import select

from bench.job import child
from bench.tools import echo, make_scan, send, timed
from config.settings import DestinationSettings
from node.send.courier import Courier
from storage.database import Database
from storage.outbox import OutboxStore
from storage.peers import PeerStore
from storage.schema import ensure_schema
from storage.spool import Spool
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Delivery, Job, Product, Series
from tests.slice.harness import StoreScp, wait_for

SLICES = 140
REPEATS = 5
_T0 = datetime(2026, 1, 1, tzinfo=UTC)


def delivery(folder: Path, bundle: str = "demo", slices: int = SLICES) -> dict[str, float]:
    """Medians in seconds for one association: our courier, which keeps every answer durably, and DCMTK's storescu."""
    spool = Spool(folder / "spool")
    product_dir = spool.root / "derived" / "1-1"
    child(make_scan(folder / "scan", slices, 98), product_dir, bundle, "free")
    scp = StoreScp(folder / "storescp", ae_title="TPS").start()
    database = Database(f"sqlite:///{folder / 'store.sqlite3'}")
    try:
        wait_for("storescp's start", lambda: echo(scp.port))
        ensure_schema(database)
        names = [f"tps{number}" for number in range(REPEATS + 1)]
        queue(database, product_dir, names)
        peers = [DestinationSettings(name=name, ae_title="TPS", host="127.0.0.1", port=scp.port) for name in names]
        courier = Courier(
            OutboxStore(database), spool, peers, peers=PeerStore(database), calling_ae="SYNCECT", name="bench"
        )
        ours, theirs = [], []
        for peer in peers:
            ours.append(timed(courier.run_once, peer))
            forget(scp)
            theirs.append(timed(send, scp.port, product_dir))
            forget(scp)
        if not all_sent(database):
            raise RuntimeError("a delivery of the bench did not arrive")
    finally:
        database.close()
        scp.kill()
    mine, dcmtk = statistics.median(ours[1:]), statistics.median(theirs[1:])  # the first ones load and warm up
    return {
        f"delivery, this node's courier: s for {slices} slices": mine,
        f"delivery, DCMTK storescu: s for {slices} slices": dcmtk,
        "delivery, this node's time / storescu's time": mine / dcmtk,
    }


def forget(scp: StoreScp) -> None:
    """Remove what arrived, so that every transfer writes new files."""
    for path in scp.files():
        path.unlink()


def queue(database: Database, product_dir: Path, destinations: list[str]) -> None:
    """A produced job whose files are due at every destination."""
    times = {"created_at": _T0, "updated_at": _T0}
    files = sorted(product_dir.iterdir())
    with database.write() as session:
        session.add(
            Series(
                id=1,
                series_uid="1.2.1",
                study_uid="1.3.1",
                state=SeriesState.QUEUED,
                calling_ae="CTSIM",
                last_arrival_at=_T0,
                **times,
            )
        )
        session.flush()
        session.add(
            Job(
                id=1,
                series_id=1,
                run=1,
                job_key="0" * 64,
                state=JobState.PRODUCED,
                bundle="bench",
                source_count=len(files),
                next_attempt_at=_T0,
                derived_series_uid="1.4.1",
                product_dir=f"derived/{product_dir.name}",
                **times,
            )
        )
        session.flush()
        session.add_all(
            Product(
                job_id=1,
                sop_instance_uid=str(read_file_meta_info(path).MediaStorageSOPInstanceUID),
                source_sop_instance_uid=f"1.2.1.{number}",
                file_name=path.name,
                sha256="0" * 64,
            )
            for number, path in enumerate(files)
        )
        session.add_all(
            Delivery(job_id=1, destination=name, state=DeliveryState.PENDING, next_attempt_at=_T0, **times)
            for name in destinations
        )


def all_sent(database: Database) -> bool:
    """Whether the receiver took every instance of every delivery."""
    with database.read() as session:
        return set(session.scalars(select(Delivery.state))) == {DeliveryState.SENT}
