"""How the statuses of C-STORE responses are read (PS3.4 B.2.3, PS3.7 Annex C)."""

import pytest

from node.network.status import Verdict, classify


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.STORED),
        (0xB000, Verdict.STORED_WITH_WARNING),
        (0xB006, Verdict.STORED_WITH_WARNING),
        (0xB007, Verdict.STORED_WITH_WARNING),
        (0xBABE, Verdict.STORED_WITH_WARNING),
        (0x0111, Verdict.STORED_WITH_WARNING),
        (0x0107, Verdict.STORED_WITH_WARNING),
        (0xA700, Verdict.TRANSIENT),
        (0xA7FF, Verdict.TRANSIENT),
        (0x0213, Verdict.TRANSIENT),
        (0xA900, Verdict.PERMANENT),
        (0xA9FF, Verdict.PERMANENT),
        (0xC000, Verdict.PERMANENT),
        (0xCFFF, Verdict.PERMANENT),
        (0x0117, Verdict.PERMANENT),
        (0x0122, Verdict.PERMANENT),
        (0x0124, Verdict.PERMANENT),
        (0x0110, Verdict.UNCLEAR),
        (0xA800, Verdict.UNCLEAR),
        (0xFE00, Verdict.UNCLEAR),
        (0xFF00, Verdict.UNCLEAR),
        (0x0002, Verdict.UNCLEAR),
    ],
)
def test_verdicts(status: int, verdict: Verdict) -> None:
    reading = classify(status)
    assert reading.verdict is verdict
    assert f"{status:04X}" in reading.sentence


def test_only_success_and_warnings_count_as_stored() -> None:
    stored = {status for status in range(0x10000) if classify(status).stored}
    assert stored == {0x0000, 0x0001, 0x0107, 0x0111, 0x0116, *range(0xB000, 0xC000)}
