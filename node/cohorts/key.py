"""The file that says who is who in a cohort, for the hospital alone."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from node.errors import Refused


def check_key_file(path: Path, cohort: Path) -> None:
    """Raise Refused for a file that exists, lies in no folder, or would travel with the cohort."""
    if path.exists():
        raise Refused(f"{path} exists; a key file is never overwritten")
    if not path.resolve().parent.is_dir():
        raise Refused(f"the folder of {path} does not exist")
    if path.resolve().is_relative_to(cohort.resolve()):
        raise Refused(f"{path} lies inside the cohort; a key must not travel with what it unlocks")


def write_key_file(path: Path, patient_ids: Mapping[str, str]) -> None:
    """Write pseudonym,patient_id as CSV that only its owner can read; raises Refused where the file exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("pseudonym", "patient_id"))
        rows.writerows(patient_ids.items())
