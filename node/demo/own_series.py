"""Finds the series to show in a folder of the reader's own, by the same rules as the node, and names no patient."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from config.settings import Settings
from node.bootstrap.roles import eligibility_policy
from node.demo.scanner import Scan
from node.demo.story import Story
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.headers import SliceHeader, read_headers
from node.errors import Refused, UnreadableInstance
from node.operate.judged import Checked, judged
from storage.errors import NotFound

_WOULD_BE_MADE: Final = ("ACCEPT", "HOLD")
_SHOWN: Final = 8  # series that are listed


def find_series(settings: Settings, folder: Path, series_uid: str, story: Story, *, without: Path) -> Scan:
    """The series to push: the one that is named, else the first that the node would translate, else the first of all.

    Nothing that it says names the folder, whose name may be a patient's.

    without: a folder that is not searched. Raises NotFound where there is no such series, Refused where it is no CT.
    """
    story.step("The scanner is the folder that you named: the demo reads the headers there and chooses a series.")
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and not path.resolve().is_relative_to(without)
    ]
    with story.during("reading headers"):
        found, unreadable = _headers(files, eligibility_policy(settings).keywords)
        rows = [judged(settings, uid, headers) for uid, headers in found.items()]
    for why, count in unreadable.items():
        story.note(f"{count} of {len(files)} files are left out: {why}")
    if not rows:
        raise NotFound(f"the folder of --series holds no DICOM image ({len(files)} files were looked at)")
    chosen = _chosen(rows, series_uid)
    _list(rows, chosen, story)
    headers = found[chosen.series_uid]
    if any(header.sop_class_uid != CT_IMAGE_STORAGE for header in headers):
        raise Refused(f"series {chosen.series_uid} is not pushed, the demo shows only CT images of one slice each")
    return Scan(tuple(headers), f"a series of your own, {len(headers)} slices")


def _headers(files: Iterable[Path], keywords: Sequence[str]) -> tuple[dict[str, list[SliceHeader]], Counter[str]]:
    """Headers by series, and how many files were not read for each reason; a name of a file may name a patient."""
    found: dict[str, list[SliceHeader]] = defaultdict(list)
    unreadable: Counter[str] = Counter()
    for path in files:
        try:
            headers = read_headers(path, keywords=keywords)
        except UnreadableInstance as error:
            unreadable[str(error)] += 1
            continue
        found[headers[0].series_uid] += headers
    return dict(found), unreadable


def _chosen(rows: list[Checked], series_uid: str) -> Checked:
    if series_uid:
        named = [row for row in rows if row.series_uid == series_uid]
        if not named:
            raise NotFound(f"the folder of --series holds no series {series_uid}")
        return named[0]
    return next((row for verdict in _WOULD_BE_MADE for row in rows if row.verdict == verdict), rows[0])


def _list(rows: list[Checked], chosen: Checked, story: Story) -> None:
    """Every series and what the node's rules say of it, the chosen one first."""
    others = [row for row in rows if row is not chosen]
    story.note(f"chosen: series {chosen.series_uid}, {chosen.slices} slices. {_verdict(chosen)}")
    for row in others[:_SHOWN]:
        story.note(f"other:  series {row.series_uid}, {row.slices} slices. {_verdict(row)}")
    if len(others) > _SHOWN:
        story.note(f"and {len(others) - _SHOWN} series more; `syncect series check` lists all")
    if others:
        story.note("Another one is shown with --series-uid UID.")


def _verdict(row: Checked) -> str:
    words = {
        "ACCEPT": "The node's rules accept its headers",
        "HOLD": "It would be translated, and the result held for a person",
        "SKIP": "The node would not translate it",
    }.get(row.verdict, f"The node would hold it as {row.verdict}")
    return f"{words}: {row.reason}" if row.reason else f"{words}."
