"""The stores around one database, and the usual ways of a series through them."""

from datetime import UTC, datetime, timedelta

from storage.jobs import JobStore, ProducedInstance, ProducedSeries
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
FACTS = SeriesFacts(description="Thorax", patient_id="P1")
QUIET_S = 5.0


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def arrival(number: int, *, series: str = "1.2.3", content: str = "a") -> Arrival:
    return Arrival(
        study_uid="1.2",
        series_uid=series,
        sop_instance_uid=f"{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=f"{content}{number}".ljust(64, "0"),
        spool_name=f"received/{series}-{number}-{content}",
        size_bytes=10,
    )


class Bench:
    """The stores around one database, and the usual ways through them."""

    def __init__(self, database):
        self.database = database
        self.series, self.jobs = SeriesStore(database), JobStore(database)
        self.outbox, self.overview = OutboxStore(database), Overview(database)

    def receive(self, numbers=range(3), *, now=T0, released=True, content="a", series="1.2.3", calling_ae="CTSIM"):
        association = self.series.open_association("receiver", calling_ae, "10.0.0.1", now)
        arrivals = [arrival(n, content=content, series=series) for n in numbers]
        results = [self.series.record(association, calling_ae, one, now) for one in arrivals]
        self.series.close_association(association, released=released, now=now)
        return results

    def open_series(self, now):
        return self.series.undecided(now, QUIET_S)

    def queue(self, key="k", *, now=None, **request):
        (series,) = self.open_series(now or at(10))
        wanted = JobRequest(key=key.ljust(64, "0"), **{"bundle": "demo", **request})
        return self.series.queue(series, FACTS, wanted, now or at(10))

    def produce(self, *, held=None, destinations=("tps",), uid="9", number=301, now=None):
        job = self.jobs.claim("w", 60, now or at(11))
        assert job is not None
        made = tuple(
            ProducedInstance(f"{uid}.{n}", f"1.2.3.{n}", f"{n:04}.dcm", "0" * 64) for n in range(len(job.sources))
        )
        product = ProducedSeries(
            uid,
            f"derived/{job.id}-{job.attempt}",
            made,
            {"changed_share": 0.1},
            series_number=number,
            series_description="sCE-CT AI Thorax",
        )
        self.jobs.finish(job.id, "w", product, destinations=destinations, held_reason=held, now=now or at(12))
        return job

    def send(self, count=None, *, to="tps", now=None):
        """The peer accepts so many instances, by default all that are missing; the delivery is handed back."""
        delivery = self.outbox.claim("c", to, 60, now or at(20))
        assert delivery is not None
        for outgoing in delivery.missing[:count]:
            self.accept(delivery, outgoing, now=now or at(20))
        if count is None:
            self.outbox.finish_sent(delivery.id, "c", "", now or at(20))
        return delivery

    def accept(self, delivery, outgoing, *, now):
        self.outbox.record_accepted(delivery.id, "c", outgoing.product_id, 0, lease_s=60, now=now)

    def states(self):
        return {case.id: case.state for case in self.overview.cases()}
