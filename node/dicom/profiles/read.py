"""Reads of a file what the rules of a profile look at."""

from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import FileDataset

from node.dicom.elements import charset_of, element_bytes, tag_of, values_of
from node.dicom.headers import read_dataset
from node.dicom.profiles.checks import Values


def read_values(path: Path, keywords: Iterable[str]) -> Values:
    """Values of one Part 10 file by keyword; raises UnreadableInstance."""
    return values_in(read_dataset(path), keywords)


def values_in(ds: FileDataset, keywords: Iterable[str]) -> Values:
    """Values of a parsed file by keyword, those of its meta information with them; absent attributes are left out."""
    charset = charset_of(ds)
    found: dict[str, tuple[str, ...]] = {}
    for keyword in keywords:
        tag = tag_of(keyword)
        if tag.group == 2:
            raw = element_bytes(ds.file_meta, tag)
            if raw is not None:
                found[keyword] = (raw.decode("latin-1").strip(" \0"),)
        elif tag in ds:
            found[keyword] = values_of(ds, keyword, charset)
    return found
