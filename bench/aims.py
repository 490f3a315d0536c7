"""What each figure should reach and which unit it has, read from its name; the only place where aims stand."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """A closed range, open to one side where that side is None."""

    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f">= {self.low:g}" if self.low is not None else f"<= {self.high:g}"

    def met(self, value: float) -> bool:
        """Whether `value` lies in the range; no number never does."""
        low = float("-inf") if self.low is None else self.low
        high = float("inf") if self.high is None else self.high
        return low <= value <= high


AIMS: dict[str, Aim] = {
    r"1000000 jobs, (jobs (ls|show).*|(worker|courier), a claim)(?<!command): s": Aim(high=0.2),
    r"1000000 jobs, page, (tab .*|rows|a patient|old rows|one case|lights made anew): s": Aim(high=0.2),
    r"ray / plain, \d actors, (processor|wall) time of the same work.*": Aim(high=1.05),
    r"ray, series whose bytes differ from those of a plain worker": Aim(high=0.0),
    r"cpu, naive / folded, faster precision": Aim(low=4.0),
    r"cpu, naive / folded fp32": Aim(low=1.8),
    r"cpu, four naive steps / syndiff_student, per slice": Aim(low=4.0),
    r"cpu, folded fp32: relative error .*": Aim(high=1e-5),
    r"cuda, naive / folded, faster precision": Aim(low=20.0),
    r"cuda, syndiff: s for 136 slices": Aim(high=0.6),
    r"demo bundle, bf16 against fp32: MAE, HU": Aim(high=1.0),
    r"demo bundle, bf16 against fp32: max, HU": Aim(high=15.0),
    r"demo bundle, bf16 against fp32: change of PSNR, dB": Aim(high=0.02),
    r"1 association: this node's rate / pynetdicom's rate": Aim(low=0.9),
    r"10 associations: this node: instances per s": Aim(low=100.0),
    r"25 associations: this node: instances per s": Aim(low=65.0),
    r"\d+ associations: echo of another peer, 99th percentile: s": Aim(high=0.25),
    r"1 association: this node's rate / Orthanc's rate as it comes": Aim(low=5.0),
    r"peak memory of the receiver, GB": Aim(high=0.25),
    r"delivery, this node's time / DCMTK's time": Aim(high=3.0),
    r"\d+ associations?.*: associations that failed": Aim(high=0.0),
    r"whole job without the network: s for 140 slices": Aim(high=4.0),
    r"proof of the series by highdicom and SimpleITK: s for 140 slices": Aim(high=1.0),
    r"job time, 560 slices / 70 slices": Aim(low=7.0, high=9.0),
    r"worker, README configuration on the CPU: peak memory, GB": Aim(high=2.5),
    r"delivery, this node's time / storescu's time": Aim(high=3.0),
    r"jobs ls, query over 100000 jobs: s": Aim(high=0.2),
    r"jobs ls --state FAILED, query over 100000 jobs: s": Aim(high=0.2),
    r"page, .* over 100000 jobs: s": Aim(high=0.2),
    r"vessels, mean change: HU": Aim(low=80.0),
    r"mass and false, mean (size of )?change: HU": Aim(high=20.0),
    r"mass and false / vessels": Aim(high=0.25),
    r".*aorta, RMS step: HU": Aim(high=8.0),
    r".*aorta, slices under 40 HU of \d+": Aim(high=0.0),
    r"internal, blood bias: HU": Aim(low=-10.0, high=10.0),
    r"external, blood bias: HU": Aim(low=-15.0, high=15.0),
    r"(internal|external|teaching), false enhancement: HU": Aim(high=3.0),
    r"slope against the requested level": Aim(low=0.9, high=1.1),
    r"small vessels of \d+ shoulders, predicted / true": Aim(low=0.5),
    r"attacks held, share of all": Aim(low=1.0),
    r"clean results held, share of \d+": Aim(high=0.0),
    r"wrongly lit regions marked, share of all": Aim(low=0.5),
    r"(vessels|circles of tracks) marked, share of all": Aim(high=0.05),
    r"AUC of doubt, wrongly lit regions over vessels": Aim(low=0.85),
    r"time, second look / translation": Aim(high=1.0),
    r"exactly once: .*": Aim(high=0.0),
    r"[24] workers, .*: predicted / measured": Aim(low=0.8, high=1.25),
    r"claims, (SQLite|PostgreSQL), \d processes: jobs per s": Aim(low=5.0),
    r"archive of \d+ series through kills: (series (lost|twice|not PRODUCED)|results that differ from their row)": Aim(
        high=0.0
    ),
    r"archive of \d+ series through kills: kills of (the driver|actors)": Aim(low=1.0),
}
"""By regular expressions that match a whole name."""

UNITS: dict[str, str] = {
    r".* / .*": "x",
    r".*(?:: |, )((?:s per step|s|CPU ms) per slice|(?:GFLOP|instances|jobs|ms) per s|GB|HU|dB)": r"\1",
    r".*(?:: |, )(?:CPU )?s(?: for \d+ slices)?": "s",
}
"""By regular expressions that match a whole name, the first that does; other figures are counts or shares."""


def aim_of(figure: str) -> Aim | None:
    """The aim of a figure, None where there is none."""
    return next((aim for pattern, aim in AIMS.items() if re.fullmatch(pattern, figure)), None)


def unit_of(figure: str) -> str:
    """The unit of a figure, "" for a count or a share."""
    for pattern, unit in UNITS.items():
        if found := re.fullmatch(pattern, figure):
            return found.expand(unit)
    return ""
