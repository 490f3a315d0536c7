"""What a person decides about jobs. Nothing is final by a typo: what stops a series asks first, and can be taken back.

Every verb takes several ids, goes on after one that fails, and tells by its exit code the worst that happened.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from node.bootstrap.store import Node, open_store
from node.cli.console import ConfigOption, Exit, ReasonOption, operator, reading, say, settings_from
from node.cli.console import tidy_reason as _tidy
from node.cli.jobs_ls import states_of
from node.cli.tables import plain
from node.errors import Refused
from node.operate import verbs
from node.operate.cases import which_case
from storage.overview import Case
from storage.states import Priority, SeriesState

Ids = Annotated[list[str], typer.Argument(help="Job ids, as listed by `jobs ls`.", metavar="ID...")]
MaybeIds = Annotated[list[str] | None, typer.Argument(help="Job ids, as listed by `jobs ls`.", metavar="ID...")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]
At = Annotated[list[str] | None, typer.Option("--at", help="Only at these destinations.", metavar="NAME")]
From = Annotated[str, typer.Option("--from", help="The AE title whose instances are dropped.", metavar="AE")]
To = Annotated[list[str] | None, typer.Option("--to", help="Only these destinations.", metavar="NAME")]
States = Annotated[
    list[str] | None, typer.Option("--state", "-s", help="Instead of ids: all in these states.", metavar="STATE")
]


@dataclass(frozen=True)
class Verb:
    """One verb: its name, what was done in one word, and how."""

    name: str
    done: str
    act: verbs.Act
    asks: bool = False


@dataclass(frozen=True)
class Call:
    """How the verb was called."""

    context: typer.Context
    config: Path | None
    reason: str
    dry_run: bool
    yes: bool = False


CODES: Final = {"not found": Exit.NOT_FOUND, "refused": Exit.REFUSED, "failed": Exit.ERROR}


def retry(
    context: typer.Context,
    ids: MaybeIds = None,
    state: States = None,
    reason: ReasonOption = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Try a failed, held or cancelled job again, judge a skipped series anew, or send to where sending failed."""
    if bool(ids) == bool(state):
        raise typer.BadParameter("name either job ids or --state")
    call = Call(context, config, _tidy(reason), dry_run, yes)
    verb = Verb("retry", "queued again", verbs.retry, asks=bool(state))
    _each(call, ids or _ids_in(call, states_of(state or [])), verb)


def cancel(
    context: typer.Context,
    ids: Ids,
    reason: ReasonOption = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Stop a job and its unfinished deliveries, or give up an incomplete series. What a TPS has got stays there."""
    call = Call(context, config, _tidy(reason), dry_run, yes)
    _each(call, ids, Verb("cancel", "cancelled", verbs.cancel, asks=True))


def priority(
    context: typer.Context,
    ids: Ids,
    urgent: Annotated[bool, typer.Option("--urgent", help="Before all others.")] = False,
    routine: Annotated[bool, typer.Option("--routine", help="As what scanners send.")] = False,
    off_peak: Annotated[bool, typer.Option("--off-peak", help="After all others, in the hours off peak.")] = False,
    due_in: Annotated[
        int | None, typer.Option("--due-in", min=0, max=10080, help="Wanted so long from now.", metavar="MINUTES")
    ] = None,
    reason: ReasonOption = "",
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Let jobs, and the deliveries of their results, come earlier or later than others."""
    given = zip((urgent, routine, off_peak), Priority, strict=True)
    chosen = [one for is_given, one in given if is_given]
    if len(chosen) > 1 or not (chosen or due_in is not None):
        raise typer.BadParameter("say one of --urgent, --routine and --off-peak, or --due-in")
    wanted = None if due_in is None else timedelta(minutes=due_in)
    act = partial(verbs.set_turn, priority=chosen[0] if chosen else None, due_in=wanted)
    _each(Call(context, config, _tidy(reason), dry_run), ids, Verb("priority", "in its turn", act))


def reject(
    context: typer.Context,
    ids: Ids,
    reason: ReasonOption = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Never send a HELD series."""
    call = Call(context, config, _tidy(reason), dry_run, yes)
    _each(call, ids, Verb("reject", "rejected", verbs.reject, asks=True))


def reopen(
    context: typer.Context, ids: Ids, reason: ReasonOption = "", dry_run: DryRun = False, config: ConfigOption = None
) -> None:
    """Take back a cancel or a reject: the job is again what it was before."""
    _each(Call(context, config, _tidy(reason), dry_run), ids, Verb("reopen", "reopened", verbs.reopen))


def release(
    context: typer.Context, ids: Ids, reason: ReasonOption = "", dry_run: DryRun = False, config: ConfigOption = None
) -> None:
    """Send a HELD series after a person has looked at it; --reason is needed and stands in every image.

    Where not the result is held, but its delivery to a destination, only the store keeps the reason.
    """
    reason = _tidy(reason)
    if not reason:
        raise typer.BadParameter("a release overrules a doubt, so say why: --reason TEXT; it stands in every image")
    _each(Call(context, config, reason, dry_run), ids, Verb("release", "released", verbs.release))


def resend(
    context: typer.Context,
    ids: Ids,
    to: To = None,
    reason: ReasonOption = "",
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Send a produced series again, the same files under the same UIDs."""
    reason = _tidy(reason)
    known = [destination.name for destination in settings_from(context, config).destination]
    if unknown := [name for name in to or [] if name not in known]:
        raise typer.BadParameter(f"no destination is named {plain(unknown[0])}; there are {', '.join(known) or 'none'}")

    call = Call(context, config, _tidy(reason), dry_run)
    _each(call, ids, Verb("resend", "due again", partial(verbs.resend, to=to or known)))


def acknowledge(
    context: typer.Context,
    ids: Ids,
    at: At = None,
    reason: ReasonOption = "",
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Say that what a cancelled or superseded job left at a TPS was dealt with there."""
    call = Call(context, config, _tidy(reason), dry_run)
    _each(call, ids, Verb("acknowledge", "acknowledged", partial(verbs.acknowledge, at=at or ())))


def complete(
    context: typer.Context, ids: Ids, reason: ReasonOption = "", dry_run: DryRun = False, config: ConfigOption = None
) -> None:
    """Confirm that an INCOMPLETE series is all there; refused at once where its slices show that it is not."""
    _each(Call(context, config, _tidy(reason), dry_run), ids, Verb("complete", "completed", verbs.complete))


def drop(
    context: typer.Context,
    ids: Ids,
    calling_ae: From,
    forget: Annotated[bool, typer.Option("--forget", help="Only let it send for the series again.")] = False,
    reason: ReasonOption = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Take out of a series what one AE title sent, and judge the series anew; its next sender owns it if none is left.

    Where somebody else sent first under the UID of a scan, this frees it for its true sender. What the dropped AE title
    sends for the series later is refused, until --forget.
    """
    reason = _tidy(reason)

    allow, take = partial(verbs.allow_again, calling_ae=calling_ae), partial(verbs.drop, calling_ae=calling_ae)
    verb = Verb("drop", "allowed", allow) if forget else Verb("drop", "dropped", take, asks=True)
    _each(Call(context, config, _tidy(reason), dry_run, yes), ids, verb)


def purge(
    context: typer.Context,
    ids: MaybeIds = None,
    older_than: Annotated[
        int | None,
        typer.Option(
            "--older-than", min=1, max=36500, help="Instead of ids: all that ended so long ago.", metavar="DAYS"
        ),
    ] = None,
    reason: ReasonOption = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    config: ConfigOption = None,
) -> None:
    """Remove the files of jobs from this node's disk; refused where a delivery or a person still needs them."""
    if bool(ids) == (older_than is not None):
        raise typer.BadParameter("name either job ids or --older-than")

    call = Call(context, config, _tidy(reason), dry_run, yes)
    if older_than is not None:
        with reading(context, config) as node:
            ids = node.retention.old_cases(node.now() - timedelta(days=older_than))
    _each(call, ids or [], Verb("purge", "purged", verbs.purge, asks=True))


# -- one after the other -----------------------------------------------------------------------------------------------


def _each(call: Call, ids: list[str], verb: Verb) -> None:
    """Do the verb for each id, whatever became of the one before; a summary ends it where there were several."""
    if verb.asks and not (call.yes or call.dry_run or _is_a_person_there()):
        raise typer.BadParameter(f"`jobs {verb.name}` asks on a terminal; where there is none, say --yes")
    outcomes: Counter[str] = Counter()
    worst = Exit.OK
    with _opened(call) as node:
        for case_id in dict.fromkeys(ids):
            outcome, code = _one(call, node, case_id, verb)
            outcomes[outcome] += 1
            worst = worst_of([worst, code])
    if len(ids) > 1:
        say(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    if worst is not Exit.OK:
        raise typer.Exit(worst)


_SEVERITY: Final = [Exit.OK, Exit.NOT_FOUND, Exit.REFUSED, Exit.ERROR]


def worst_of(codes: Iterable[Exit]) -> Exit:
    """The exit code of several verbs together."""
    return max(codes, key=_SEVERITY.index)


def _one(call: Call, node: Node, case_id: str, verb: Verb) -> tuple[str, Exit]:
    try:
        outcome, detail = _do(call, node, node.overview.case(case_id), verb)
    except verbs.FAILED as error:
        outcome = next(outcome for kinds, outcome in verbs.FAILURES if isinstance(error, kinds))
        say(f"syncect: {plain(verbs.told(case_id, error))}")
        return outcome, CODES[outcome]
    say(f"{case_id}: {outcome}" + (f"; {detail}" if detail else ""))
    return outcome, Exit.OK


def _do(call: Call, node: Node, case: Case, verb: Verb) -> tuple[str, str]:
    """What was done with one case, and what a person must know of it; raises what refuses it."""
    if why_not := verbs.refused(node, case, verb.name):
        raise Refused(why_not)
    if call.dry_run:
        return f"would be {verb.done}", plain(which_case(case))
    if verb.asks and not call.yes and not typer.confirm(f"{verb.name} {case.id}: {plain(which_case(case))}?", err=True):
        return "left as it is", ""
    return verb.done, plain(verb.act(node, case, operator(), call.reason, node.now()))


def _ids_in(call: Call, states: list[str]) -> list[str]:
    with reading(call.context, call.config) as node:
        return [case.id for case in node.overview.cases(states=states, limit=0) if _has_a_verb(case)]


def _has_a_verb(case: Case) -> bool:
    return case.job_id is not None or case.state == SeriesState.SKIPPED


@contextmanager
def _opened(call: Call) -> Iterator[Node]:
    if call.dry_run:
        with reading(call.context, call.config) as node:
            yield node
    else:
        with open_store(settings_from(call.context, call.config)) as node:
            yield node


def _is_a_person_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
