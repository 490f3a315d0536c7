"""What a state's page takes from the program: where the state goes on to, where it comes from, and its next steps.

A page below docs/operate/states has the two marks; each is replaced when the site is built.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from node.operate.next_steps import Facts, next_step
from storage.cases import Case, DeliveryView, NoteView, SliceCounts
from storage.states import DELIVERY_ARROWS, JOB_ARROWS, RECALLED, SERIES_ARROWS, WORKER_CANNOT
from storage.transitions import NEVER

ARROWS_MARK: Final = "<!-- made from the program: where it comes from and goes to -->"
STEPS_MARK: Final = "<!-- made from the program: what the node advises -->"

_MACHINES: Final[tuple[tuple[str, Mapping[Any, Mapping[Any, str]]], ...]] = (
    ("series", SERIES_ARROWS),
    ("job", JOB_ARROWS),
    ("delivery", DELIVERY_ARROWS),
)
_HALF_PAST_8: Final = datetime(2026, 11, 26, 8, 30, tzinfo=UTC)
_RUNS: Final = Facts(roles=frozenset({"receive", "complete", "work", "deliver"}), destinations=("tps",), zone=UTC)


def states() -> list[str]:
    """Every state that there is, in the order of a series' life; one that two machines have stands once."""
    return [*dict.fromkeys(str(state) for _, arrows in _MACHINES for state in arrows), RECALLED]


def page_of(state: str) -> str:
    """The path of a state's page in the repository."""
    return f"docs/operate/states/{state.lower()}.md"


def filled(path: str, text: str) -> str:
    """A page with its marks replaced, where it is that of a state."""
    state = Path(path).stem.upper()
    if path != page_of(state):
        return text
    return text.replace(ARROWS_MARK, arrows_of(state)).replace(STEPS_MARK, steps_of(state))


def arrows_of(state: str) -> str:
    """Tables of the arrows that begin and end at a state, for each machine that has it."""
    if state == RECALLED:
        return f"`syncect recall` makes it of any state of a job. {RECALLED} is an end: it becomes nothing else."
    parts = []
    for name, arrows in _MACHINES:
        if state not in arrows:
            continue
        leaving = [(f"{state} → {_linked(to)}", words) for to, words in arrows[state].items()]
        coming = [(f"{_linked(one)} → {state}", to[state]) for one, to in arrows.items() if state in to]
        parts += [f"As the state of a {name}:", ""]
        parts += ["| from → to | who does it, and when |", "|---|---|"]
        parts += [f"| {arrow} | {words} |" for arrow, words in (*coming, *leaving)]
        parts += [] if leaving else [f"| {state} | the end: it becomes nothing else |"]
        parts.append("")
    return "\n".join(parts).rstrip()


def _linked(state: str) -> str:
    return f"[{state}]({state.lower()}.md)"


def steps_of(state: str) -> str:
    """What `syncect jobs why` advises about case 12 in this state, in each situation that there is a row for."""
    rows = [(words, next_step(case, facts)) for words, case, facts in _situations() if case.state == state]
    return "\n".join(["| when | what `syncect jobs why 12` says |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def _case(state: str, **changes: Any) -> Case:
    base = Case(
        id="12",
        series_id=12,
        job_id=12,
        state=state,
        reason="",
        series_uid="1.2.3",
        derived_series_uid=None,
        study_uid="1.2",
        calling_ae="CTSIM1",
        description="Thorax",
        patient_id="",
        slices=SliceCounts(180, 0, 0, 0),
        bundle="demo 1",
        attempts=0,
        created_at=_HALF_PAST_8,
        updated_at=_HALF_PAST_8,
        moved_at=_HALF_PAST_8,
        counts_from=_HALF_PAST_8,
        series_number=301,
        job_state=state,
    )
    return replace(base, **changes)


def _delivered(state: str, delivery: str, reason: str = "", **changes: Any) -> Case:
    one = DeliveryView(
        *("tps", delivery, reason, 1, _HALF_PAST_8, _HALF_PAST_8),
        *(0, 0, _HALF_PAST_8, None, ""),
    )
    return _case(state, job_state="PRODUCED", product_dir="derived/12-1", deliveries=(one,), **changes)


def _unconfirmed() -> Case:
    case = _delivered("SENT", "SENT", "not confirmed within 24 h: tps did not report on storage commitment")
    return replace(case, deliveries=tuple(replace(one, next_attempt_at=NEVER) for one in case.deliveries))


def _held_delivery() -> Case:
    case = _delivered("HELD", "PENDING")
    return replace(case, deliveries=(replace(case.deliveries[0], held_for="another PatientName"),))


def _recalled(note: str = "") -> Case:
    case = _delivered("RECALLED", "SENT", leftovers=("tps",), recalled_at=_HALF_PAST_8)
    views = tuple(
        replace(one, leftover="STANDS", note=NoteView(note, "113037", "", 1, None, _HALF_PAST_8) if note else None)
        for one in case.deliveries
    )
    return replace(case, job_state="CANCELLED", deliveries=views)


def _standing(state: str) -> Case:
    views = tuple(replace(one, leftover="STANDS") for one in _delivered(state, "SENT").deliveries)
    return _case(state, product_dir="derived/12-1", leftovers=("tps",), deliveries=views)


def _situations() -> list[tuple[str, Case, Facts]]:
    """Situations of each state that a reader meets, in words; the advice comes from the program."""
    silent = replace(_RUNS, unreachable={"tps": "since 2026-11-26 08:30:00 UTC (connection refused)"})
    elsewhere = replace(_RUNS, destinations=("pacs",))
    stopped = replace(_RUNS, roles=frozenset())
    no_gpu = replace(_RUNS, cannot_work="no CUDA device")
    lost = replace(_RUNS, lost_files="spool/derived/12-1")
    made = {"product_dir": "derived/12-1"}
    delivered: Callable[..., Case] = _delivered
    return [
        ("slices arrive", _case("RECEIVING"), _RUNS),
        ("the completion process does not run", _case("RECEIVING"), stopped),
        ("slices are missing", _case("INCOMPLETE"), _RUNS),
        ("the series is of a kind that is not translated", _case("SKIPPED"), _RUNS),
        ("it waits its turn", _case("QUEUED"), _RUNS),
        ("an attempt failed for a reason that may pass", _case("QUEUED", attempts=1, reason="the disk is full"), _RUNS),
        ("images came again, or are to be sent again", _case("QUEUED", is_present=False), _RUNS),
        ("no worker runs", _case("QUEUED"), stopped),
        ("the worker has no device", _case("QUEUED"), no_gpu),
        ("the model is at work", _case("RUNNING"), _RUNS),
        ("the worker was stopped", _case("RUNNING"), stopped),
        ("there is a result, and a doubt about it", _case("HELD", **made), _RUNS),
        ("files of the result are missing", _case("HELD", **made), lost),
        ("the worker could not compute", _case("HELD", reason=f"{WORKER_CANNOT}no CUDA device"), no_gpu),
        ("the series cannot be computed", _case("HELD", reason="the pixels of 3 slices do not fit BitsStored"), _RUNS),
        ("a TPS has another patient under the PatientID", _held_delivery(), _RUNS),
        ("the courier sends it next", delivered("PRODUCED", "PENDING"), _RUNS),
        ("no destination is set", _case("PRODUCED", **made), replace(_RUNS, destinations=())),
        ("it was made when no destination was set", _case("PRODUCED", **made), _RUNS),
        ("the courier is at it", delivered("SENDING", "SENDING"), _RUNS),
        ("the TPS does not answer", delivered("SENDING", "PENDING", "connection refused"), silent),
        ("the settings name the destination no more", delivered("SENDING", "PENDING"), elsewhere),
        ("the courier does not run", delivered("SENDING", "PENDING"), stopped),
        ("the TPS took everything", delivered("SENT", "SENT"), _RUNS),
        ("the TPS did not confirm it, and is asked no more", _unconfirmed(), _RUNS),
        ("the TPS showed that it holds everything", delivered("CONFIRMED", "CONFIRMED"), _RUNS),
        ("the translation failed", _case("FAILED"), _RUNS),
        ("the TPS refused it for good", delivered("FAILED", "FAILED", "status A900"), _RUNS),
        ("the settings name the destination no more", delivered("FAILED", "FAILED"), elsewhere),
        ("files of the result are missing", delivered("FAILED", "FAILED"), lost),
        ("a person stopped it", _case("CANCELLED"), _RUNS),
        ("a TPS has taken images of it", _standing("CANCELLED"), _RUNS),
        ("the series came again since", _case("CANCELLED", is_present=False), _RUNS),
        ("a person rejected the result", _case("REJECTED", **made), _RUNS),
        ("a newer job stands for the series", _case("SUPERSEDED"), _RUNS),
        ("a TPS has taken images of it", _standing("SUPERSEDED"), _RUNS),
        ("the TPS gets no rejection notes", _recalled(), _RUNS),
        ("the TPS gets one", _recalled(), replace(_RUNS, rejecting=frozenset({"tps"}))),
        ("the TPS took it", _recalled("SENT"), _RUNS),
        ("the TPS refused it", _recalled("FAILED"), _RUNS),
        ("nothing of it stands anywhere", _case("RECALLED", job_state="CANCELLED", recalled_at=_HALF_PAST_8), _RUNS),
        ("the series came again since", _case("RECALLED", recalled_at=_HALF_PAST_8, is_present=False), _RUNS),
    ]
