"""What a process counts: from many threads, by bounds of time, and never without end."""

import threading

from node.beats import LATENCY_BOUNDS_S, MOST_NUMBERS, Numbers


def test_threads_lose_no_count():
    numbers = Numbers()

    def count():
        for _ in range(2000):
            numbers.add("stores", of="0000")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers.all() == {"stores:0000": 16000}


def test_a_time_counts_under_the_lowest_bound_that_it_kept():
    numbers = Numbers()
    for seconds in (0.001, 0.005, 0.0051, 99.0):
        numbers.time("store_s", seconds)
    assert numbers.all() == {"store_s:0.005": 2, "store_s:0.01": 1, "store_s:+Inf": 1, "store_s_sum": 99.0111}
    assert f"{LATENCY_BOUNDS_S[-1]:g}" == "10"


def test_there_are_never_more_numbers_than_a_reader_takes_at_once():
    numbers = Numbers()
    for k in range(MOST_NUMBERS + 50):
        numbers.add("sent", of=f"tps{k}")
    assert len(numbers.all()) == MOST_NUMBERS
    numbers.add("sent", of="tps0")
    assert numbers.all()["sent:tps0"] == 2


def test_a_device_that_cannot_be_asked_hides_no_other_number():
    numbers = Numbers()
    numbers.put("slice_s", 0.25)
    numbers.ask(lambda: {"device_bytes": 80.0})
    assert numbers.all() == {"slice_s": 0.25, "device_bytes": 80.0}

    def lost():
        raise RuntimeError("CUDA error")

    numbers.ask(lost)
    assert numbers.all() == {"slice_s": 0.25}
