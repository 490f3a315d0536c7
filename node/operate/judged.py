"""What the eligibility rules say of a series that lies on a disk; loaded only where somebody asks for it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings
from node.bootstrap.roles import eligibility_policy
from node.bootstrap.store import Node
from node.dicom.headers import SliceHeader, read_headers
from node.errors import Permanent, UnreadableInstance
from node.receive.completion import series_facts
from node.receive.eligibility import Accept, judge
from storage.errors import NotFound

Found = dict[str, list[SliceHeader]]


@dataclass(frozen=True)
class Checked:
    """What the eligibility rules decided about one series.

    description: free text of the header, which may name a patient. verdict: ACCEPT, HOLD (it is translated, and the
    result held), SKIP or INCOMPLETE.
    """

    series_uid: str
    slices: int
    description: str
    facts: Mapping[str, int | str]
    verdict: str
    reason: str


def check_received(node: Node, series_uid: str) -> Checked:
    """What the eligibility rules decide about a series in the spool; raises NotFound."""
    cases = node.overview.cases(series_uid=series_uid, limit=1)
    if not cases:
        raise NotFound(f"{series_uid} is neither a folder nor a series that was received")
    names = node.series.spool_names(cases[0].series_id)
    node.spool.fetch(node.series.wanted(names))
    found, unreadable = headers_of(node.settings, [node.spool.path(name) for name in names], iter)
    if unreadable:
        raise Permanent(unreadable[0])
    return judged(node.settings, series_uid, found[series_uid])


def judged(settings: Settings, uid: str, headers: list[SliceHeader]) -> Checked:
    """What the eligibility rules decide about a series of which these are the headers."""
    verdict = judge(headers, eligibility_policy(settings))
    reason = verdict.doubt if isinstance(verdict, Accept) else verdict.reason
    word = "HOLD" if isinstance(verdict, Accept) and verdict.doubt else type(verdict).__name__.upper()
    shown = series_facts(headers)
    return Checked(uid, len(headers), shown.description, shown.facts, word, reason)


def headers_of(
    settings: Settings, paths: Sequence[Path], step: Callable[[Sequence[Path]], Iterable[Path]]
) -> tuple[Found, list[str]]:
    """The headers of these files by series, and a sentence for each that was not read; `step` shows how far it is."""
    found: Found = defaultdict(list)
    unreadable = []
    keywords = eligibility_policy(settings).keywords
    for path in step(paths):
        try:
            headers = read_headers(path, keywords=keywords)
        except UnreadableInstance as error:
            unreadable.append(f"{path.name}: {error}")
            continue
        found[headers[0].series_uid] += headers
    return dict(found), unreadable
