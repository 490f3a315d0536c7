"""The receiver counts what it answered, and how long it took, outside of the C-STORE itself."""

from typing import Any

from config.settings import ScpSettings
from node.beats import Numbers, no_beat
from node.receive.receiver import Receiver
from tests.peers.measures import wait_until
from tests.peers.test_receiver_storing import association


def test_answers_are_counted_by_status_with_their_bytes_and_times(store: Any, make_ct: Any) -> None:
    numbers = Numbers()
    receiver = Receiver(
        ScpSettings(host="127.0.0.1"),
        store.spool,
        store.series,
        store.refusals,
        name="receiver-1",
        port=0,
        beat=no_beat,
        numbers=numbers,
    )
    receiver.start()
    try:
        with association(receiver) as link:
            for n in range(3):
                assert link.send_c_store(make_ct(instance=n)).Status == 0x0000
            assert link.send_c_store(make_ct(instance=3, SeriesInstanceUID=None)).Status == 0xC000
        wait_until(lambda: numbers.all().get("stores:C000") == 1)
    finally:
        receiver.stop(grace_s=0.0)
    found = numbers.all()
    assert found["stores:0000"] == 3
    assert found["store_bytes"] > 4 * 64 * 64 * 2
    assert sum(count for name, count in found.items() if name.startswith("store_s:")) == 4
    assert found["store_s_sum"] > 0
