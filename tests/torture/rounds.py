"""Rounds of one bed: a scanner sends, a fault comes and goes, the node recovers, and everything is judged."""

import shutil
from pathlib import Path
from random import Random

from tests.conftest import PostgresCluster
from tests.torture.bed import Bed
from tests.torture.faults import Kept
from tests.torture.report import Report
from tests.torture.scans import SLICES

BOUND_S = 120.0
# A series during which the completion or the worker ended twice is FAILED by design, and waits for a person.
_ROLES = ("receive", "deliver", "receive", "complete", "work")
_SERVE_IN = 6  # one round of so many kills the supervisor as well
_LONGEST_PAUSE_S = 1.5
_MET_S = 60.0  # the courier waits 30 s for an answer


class Beds:
    """Makes beds on one database; a bed with a finding is thrown away, so that one fault does not spoil the next."""

    def __init__(self, folder: Path, bundle: Path, rng: Random, cluster: PostgresCluster | None) -> None:
        self.folder, self.bundle, self.rng, self.cluster = folder, bundle, rng, cluster
        self.database = "SQLite" if cluster is None else "PostgreSQL"
        self._made = 0
        self._bed: Bed | None = None

    @property
    def bed(self) -> Bed:
        """The present one."""
        if self._bed is None:
            self._made += 1
            name = f"{self.database}{self._made}"
            self._bed = Bed(self.folder / name, self.bundle, self.rng, cluster=self.cluster, shim=True)
        return self._bed

    def drop(self) -> None:
        """End the present one."""
        if self._bed is not None:
            self._bed.close()
            shutil.rmtree(self._bed.folder)
            self._bed = None

    def judge(self, report: Report, name: str, *, times: int, bound_s: float = BOUND_S) -> None:
        """Wait for the recovery, judge, and write down what was found."""
        bed = self.bed
        before = bed.judged
        seconds = bed.settle(bound_s)
        verdict = bed.judge()
        bed.judged = verdict.acknowledged
        row = report.row(name, self.database)
        row.add(verdict, acknowledged=verdict.acknowledged - before, seconds=seconds, times=times)
        if not verdict.is_clean:
            self.drop()


def kill_round(beds: Beds, report: Report) -> int:
    """One series or two while processes, and once the whole node, are killed at random moments; how many were."""
    bed, before = beds.bed, beds.bed.kills
    bed.renew()
    scanner = bed.push()
    if bed.rng.random() < 0.5:
        bed.push()
    scanner.wait_for(bed.rng.randrange(SLICES), 20.0)
    roles = list(_ROLES)
    bed.rng.shuffle(roles)
    if bed.rng.randrange(_SERVE_IN) == 0:
        roles[0] = "serve"
    whole_at = bed.rng.randrange(len(roles))
    for at, role in enumerate(roles):
        bed.pause(bed.rng.uniform(0.0, _LONGEST_PAUSE_S))
        bed.kill(role)
        if at == whole_at:
            bed.pause(bed.rng.uniform(0.0, _LONGEST_PAUSE_S))
            bed.kill_all()
    done = bed.kills - before
    beds.judge(report, "kill -9 at a random moment", times=done)
    return done


def fault_round(beds: Beds, report: Report, kept: Kept, *, bound_s: float = BOUND_S) -> None:
    """One fault while a series comes, and another series after its cure."""
    bed = beds.bed
    bed.renew()
    scanner = bed.push()
    scanner.wait_for(bed.rng.randrange(SLICES + 1), 20.0)
    bed.pause(bed.rng.uniform(0.0, _LONGEST_PAUSE_S))
    fault = kept.fault(bed)
    next(fault)
    bed.pause(kept.hold_s)
    if not bed.await_(lambda: kept.is_met(bed), _MET_S):
        report.skipped.append(f"{kept.name} on {beds.database}: the node did not meet it")
    for _ in fault:
        raise RuntimeError(f"{kept.name} has two cures")
    bed.push()
    beds.judge(report, kept.name, times=1, bound_s=bound_s)
