"""The stations of the model against closed forms of queueing theory, and the node against sums done by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import simpy

from bench.scaled.model import BACKGROUND, Arrival, Plan, Stage, Times, mean_and_half_width, simulate
from bench.scaled.stations import Shared, Station, percentile

RATE, SERVICE_S = 0.7, 1.0
_CUSTOMERS, _WARM, _SEEDS = 2500, 250, 12


def sojourn_s(
    seed: int, serve: Callable[[simpy.Environment], Any], draw: Callable[[Random], float], rate: float
) -> float:
    """Mean time in the system of Poisson arrivals, after the first ones."""
    env, rng, times = simpy.Environment(), Random(seed), list[float]()
    station = serve(env)

    def customer(number: int) -> Any:
        begun = env.now
        yield from station(draw(rng))
        if number >= _WARM:
            times.append(env.now - begun)

    def arrive() -> Any:
        for number in range(_CUSTOMERS):
            yield env.timeout(rng.expovariate(rate))
            env.process(customer(number))

    env.process(arrive())
    env.run()
    return sum(times) / len(times)


def erlang_c(servers: int, load: float) -> float:
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


def exponential(rng: Random) -> float:
    return rng.expovariate(1 / SERVICE_S)


def constant(_rng: Random) -> float:
    return SERVICE_S


CLOSED_FORMS = {
    "M/M/1": (lambda env: Station(env, 1).serve, exponential, RATE, 1 / (1 - RATE)),
    "M/D/1": (lambda env: Station(env, 1).serve, constant, RATE, 1 + RATE / (2 * (1 - RATE))),
    "M/M/3": (lambda env: Station(env, 3).serve, exponential, 3 * RATE, 1 + erlang_c(3, 3 * RATE) / (3 - 3 * RATE)),
    "M/M/1, shared": (lambda env: Shared(env, 1).serve, exponential, RATE, 1 / (1 - RATE)),
    "M/D/1, shared": (lambda env: Shared(env, 1).serve, constant, RATE, 1 / (1 - RATE)),
    "M/M/3, shared": (
        lambda env: Shared(env, 3).serve,
        exponential,
        3 * RATE,
        1 + erlang_c(3, 3 * RATE) / (3 - 3 * RATE),
    ),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_mean_time_in_a_station_is_that_of_its_closed_form(name: str) -> None:
    serve, draw, rate, expected_s = CLOSED_FORMS[name]
    mean, half = mean_and_half_width([sojourn_s(seed, serve, draw, rate) for seed in range(_SEEDS)])
    assert abs(mean - expected_s) <= half
    assert half < 0.2 * expected_s, "an interval so wide would hold any value"


def test_of_those_that_wait_the_most_urgent_is_served_first() -> None:
    env, served = simpy.Environment(), list[int]()
    station = Station(env, 1)

    def customer(rank: int) -> Any:
        yield from station.serve(1.0, rank)
        served.append(rank)

    for rank in (5, 3, 1, 2):
        env.process(customer(rank))
    env.run()
    assert served == [5, 1, 2, 3]
    assert station.busy_s == 4.0


def test_tasks_share_cores_evenly_and_none_takes_more_than_its_most() -> None:
    env, ended = simpy.Environment(), dict[str, float]()
    cores = Shared(env, 2)

    def task(name: str, work: float, most: float) -> Any:
        yield from cores.serve(work, most)
        ended[name] = env.now

    for name, most in (("one", 1.0), ("half", 0.5), ("wide", 2.0)):
        env.process(task(name, 1.5, most))
    env.run()
    # half takes 0.5 for 3 s; the other 1.5 cores are 0.75 each for 2 s.
    assert ended == pytest.approx({"one": 2.0, "wide": 2.0, "half": 3.0})
    assert cores.busy_s == pytest.approx(4.5 / 2)


TIMES = Times(
    receive=Stage(1.0),
    judge=Stage(0.5),
    job=Stage(4.0, wait_s=1.0),
    gpu_s=2.0,
    transactions_s=0.2,
    deliver=Stage(0.5, wait_s=0.1),
    quiet_s=10.0,
    poll_s=0.0,
)
PLAN = Plan(cores=2, workers=1, gpus=1, wire_s=0.6, tps_s=7.0)


def test_one_series_alone_takes_the_sum_of_its_stages() -> None:
    outcome = simulate(TIMES, PLAN, [Arrival(3.0)], 0)
    assert outcome.sojourns_s == pytest.approx([0.6 + 1 + 10 + 0.5 + 0.2 + 5 + 2 + 0.6 + 7])


def test_workers_share_the_cores_so_that_more_of_them_gain_nothing_beyond_those() -> None:
    cpu = replace(TIMES, receive=Stage(0.01), judge=Stage(0.0), job=Stage(4.0), gpu_s=0.0, quiet_s=0.0)
    cpu = replace(cpu, transactions_s=0.0, deliver=Stage(0.0))
    plan, backlog = replace(PLAN, tps_s=0.0, wire_s=0.0), [Arrival(0.0, scanner) for scanner in range(40)]
    taken = {workers: simulate(cpu, replace(plan, workers=workers), backlog, 0).ended_s for workers in (1, 2, 4, 8)}
    assert taken[1] / taken[2] == pytest.approx(2, rel=0.1)
    assert taken[4] == pytest.approx(taken[2], rel=0.1)
    assert taken[8] == pytest.approx(taken[2], rel=0.1)


def test_an_archive_in_the_background_waits_for_what_a_scanner_sends() -> None:
    slow = replace(TIMES, quiet_s=0.0, receive=Stage(0.01), judge=Stage(0.0))
    archive = [Arrival(0.0, 1 + number, BACKGROUND) for number in range(20)]
    alone = simulate(slow, PLAN, [Arrival(20.0)], 0).sojourns_s[0]
    with_archive = simulate(slow, PLAN, [Arrival(20.0), *archive], 0)
    # At most the job in hand, and the courier's queue.
    assert min(with_archive.sojourns_s) < alone + 7 + 7.6


def test_the_same_seed_gives_the_same_outcome_and_another_one_another() -> None:
    polls = replace(TIMES, poll_s=0.5)
    arrivals = [Arrival(float(number)) for number in range(20)]
    first, again, other = (simulate(polls, PLAN, arrivals, seed).sojourns_s for seed in (1, 1, 2))
    assert first == again != other


def test_the_bottleneck_is_the_station_that_is_busiest() -> None:
    backlog = [Arrival(0.0, scanner) for scanner in range(30)]
    assert simulate(TIMES, replace(PLAN, tps_s=60.0), backlog, 0).bottleneck == "courier and TPS"
    assert simulate(replace(TIMES, gpu_s=90.0), replace(PLAN, workers=4), backlog, 0).busy["GPU"] > 0.9


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.95) == 4.0
    assert math.isnan(percentile([], 0.5))
