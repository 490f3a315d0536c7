"""The corpus of hostile values: what peers, browsers and files send in the place of a UID, a title, an ID or a name.

The values stand in `tests/fuzz/corpus`, a JSON file for each kind, so that other tests can take them too.
"""

import json
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).with_name("corpus")


def _texts(kind: str) -> tuple[str, ...]:
    """Each entry is a text, or [text, how often it is repeated]."""
    entries = json.loads((CORPUS / f"{kind}.json").read_text(encoding="ascii"))
    return tuple(one if isinstance(one, str) else one[0] * one[1] for one in entries)


def _names() -> tuple[tuple[str, bytes], ...]:
    entries = json.loads((CORPUS / "names.json").read_text(encoding="ascii"))
    return tuple((charset, bytes.fromhex(value)) for charset, value in entries)


UIDS: Final = _texts("uids")
AE_TITLES: Final = _texts("ae_titles")
IDS: Final = _texts("ids")
NAMES: Final = _names()
"""Person names as bytes, each with its SpecificCharacterSet, "\\" between the values of one."""
TEXTS: Final = (*UIDS, *AE_TITLES, *IDS)
TOKENS: Final = tuple(
    sorted({one.encode("utf-8", "surrogatepass") for one in TEXTS if len(one) < 200} | {value for _, value in NAMES})
)
"""The same as bytes, to be put into inputs of any format."""
