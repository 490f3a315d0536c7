"""A person releases a HELD result of an archive: its images say so first, then its row does.

It may be killed at any line. What was decided is written down before anything else, and whoever releases the series
again ends what was begun, with the words of the first: so the images have the same bytes however often it is begun.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from config.settings import Settings
from node.archive.keeping import OUTCOMES, keep_rows, read_outcomes
from node.archive.outcome import End, digest_of, from_parquet, to_parquet
from node.archive.run import RUN_FILE
from node.bootstrap.places import Place, fetch_all, open_place, read
from node.dicom.doubt_file import copy_doubt
from node.errors import Permanent, Refused
from node.translate.release import override_sentence, write_released
from storage.errors import NotFound

RELEASED: Final = "released"
"""Folder of the output with who released which series and why, one file for each."""


def release(settings: Settings, out: str, series: str, *, actor: str, reason: str, now: datetime) -> str:
    """Let a HELD result count as PRODUCED, for all copies of its series; returns the folder of its files in the output.

    series: the key of a row, or the SeriesInstanceUID of its source. Actor and reason stand in every image. Raises
    NotFound, Refused where it is not HELD or nothing was produced, Permanent where its files are damaged,
    ObjectsUnavailable, OSError.
    """
    place = open_place(out, settings.spool)
    if place.head(RUN_FILE) is None:
        raise NotFound("no archive was begun there")
    row = _row_of(place, series)
    if row["released_at"]:
        _end(place, row)
        raise Refused(f"{row['released_by']} has released it already")
    if row["end"] != End.HELD:
        raise Refused(f"it is {row['end']}, and only a HELD result can be released")
    if not row["place"]:
        raise Refused("nothing was produced that could be released")
    released = _released(place, row, {"by": actor, "reason": reason, "at": now.isoformat(timespec="seconds")})
    keep_rows(place, [released])
    _end(place, released)
    return str(released["place"])


def _row_of(place: Place, series: str) -> dict[str, Any]:
    rows = [row for row in read_outcomes(place).values() if series in (row["key"], row["series_uid"])]
    if not rows:
        raise NotFound("no series of this UID or key has an outcome there")
    if len({row["derived_series_uid"] or row["key"] for row in rows}) > 1:
        raise Refused(f"{len(rows)} rows have this UID; name the key of one, which `archive ls --json` shows")
    return rows[0]


def _released(place: Place, row: Mapping[str, Any], decided: Mapping[str, str]) -> dict[str, Any]:
    """Put the files of a held result with the sentence about its release; returns the row that they make."""
    with tempfile.TemporaryDirectory() as name:
        held, made = Path(name, "held"), Path(name, "made")
        held.mkdir()
        made.mkdir()
        slices = _fetched(place, row, held)
        paper = f"{RELEASED}/{row['derived_series_uid']}.json"  # and not of the row: copies have one result
        place.put_new(paper, json.dumps({**decided, "doubt": row["reason"]}).encode())
        said = json.loads(read(place, paper))  # of whoever came first
        digests = write_released(slices, row["reason"], said["by"], said["reason"], made)
        copy_doubt(held, made)
        folder = f"series/{row['derived_series_uid']}"
        for path in sorted(made.iterdir()):
            place.put(f"{folder}/{path.name}", path.read_bytes())
    words = override_sentence(row["reason"], said["by"], said["reason"], charset=("ISO_IR 192",))
    about = {"reason": words, "released_by": said["by"], "released_at": said["at"]}
    return {**row, "end": End.PRODUCED.value, "place": folder, "sha256": digest_of(digests), **about}


def _fetched(place: Place, row: Mapping[str, Any], folder: Path) -> list[tuple[Path, str]]:
    """The slices of a held result in a folder, under their names, each with its SHA-256."""
    found = sorted(place.list(row["place"]), key=lambda one: one.key)
    for one, path in zip(found, fetch_all(place, found, folder), strict=True):
        path.rename(folder / Path(one.key).name)
    slices = [(path, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(folder.glob("*.dcm"))]
    if digest_of(sha256 for _, sha256 in slices) != row["sha256"]:
        raise Permanent("its files are not those that were produced; nothing was released")
    return slices


def _end(place: Place, row: dict[str, Any]) -> None:
    """What follows a row that says PRODUCED, and may be done twice."""
    table = f"{OUTCOMES}.parquet"
    if place.head(table) is not None:  # else a run has not come to its end, and will write it
        now = {key: one for key, one in read_outcomes(place).items() if one["released_at"]}
        rows = from_parquet(read(place, table))
        place.put(table, to_parquet([now.get(one["key"], one) for one in rows]))
    place.delete([found.key for found in place.list(f"held/{row['derived_series_uid']}")])
