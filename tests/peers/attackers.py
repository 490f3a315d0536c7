"""Crowds and floods against a receiver, each in a process of its own so that they cost its interpreter nothing.

A mode of attack is a function of `_MODES`. It calls `ready` when the attack stands, goes on until `stop` is set, and
returns what it saw.
"""

import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.peers.raw_peer import CT, EXPLICIT, RawPeer, Rejected, associate_rq, connect, data_set, read_pdu

START_S, END_S = 30.0, 200.0
Report = dict[str, Any]


@contextmanager
def attack(mode: str, port: int, *, end_s: float = END_S, **options: Any) -> Iterator[Report]:
    """Attack the receiver while the block runs; the dictionary has the attacker's report after the block."""
    report: Report = {}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.peers.attackers", mode, json.dumps({"port": port, **options})],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(START_S, child.kill)  # ends the wait for a child that does not get ready
    try:
        assert child.stdout is not None
        watchdog.start()
        assert child.stdout.readline() == "ready\n", f"the attack {mode} could not be mounted"
        watchdog.cancel()
        yield report
        assert child.poll() is None, f"the attack {mode} ended too early"
        said, _ = child.communicate(timeout=end_s)  # closes its standard input, which tells it to stop
        report.update(json.loads(said))
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


Ready = Callable[[], None]


def idle(
    stop: threading.Event,
    ready: Ready,
    *,
    port: int,
    count: int,
    sources: list[str],
    greeting: str = "",
    per_s: float = 13.0,
) -> Report:
    """Keep `count` connections open that say `greeting` (in hex) and nothing more.

    A connection that the receiver closes is opened anew, `per_s` of them in a second: a crowd does not go home.
    """
    crowd: list[socket.socket] = []
    opened = 0

    def join() -> None:
        nonlocal opened
        crowd.append(_stranger(port, sources[opened % len(sources)], greeting))
        opened += 1

    while len(crowd) < count:
        join()
    ready()
    while not stop.wait(1 / per_s):
        for gone in _ended(crowd):
            crowd.remove(gone)
            gone.close()
        if len(crowd) < count:
            join()
    return {"opened": opened, "open": len(crowd)}


def arriving(stop: threading.Event, ready: Ready, *, port: int, per_s: float, sources: list[str]) -> Report:
    """Open `per_s` new connections a second that say nothing, and close none of them."""
    crowd: list[socket.socket] = []
    ready()
    while not stop.wait(1 / per_s):
        crowd.append(_stranger(port, sources[len(crowd) % len(sources)], ""))
    return {"opened": len(crowd), "open": len(crowd) - len(_ended(crowd))}


def associations(
    stop: threading.Event,
    ready: Ready,
    *,
    port: int,
    silent: int,
    echoing: int,
    every_s: float,
    calling: str,
    source: str = "127.0.0.1",
) -> Report:
    """Hold associations of which some say nothing and some send C-ECHO every `every_s`; whoever is ended comes back."""
    seen: Counter[str] = Counter()
    asked = threading.Semaphore(0)

    def hold(talks: bool) -> None:
        while not stop.is_set():
            try:
                peer = RawPeer(port, calling=calling, source=source)
            except OSError as error:
                seen["rejected" if isinstance(error, Rejected) else "closed"] += 1
                asked.release()
                stop.wait(1.0)
                continue
            seen["accepted"] += 1
            asked.release()
            with peer:
                _stay(peer, stop, every_s if talks else None)

    for number in range(silent + echoing):
        threading.Thread(target=hold, args=(number >= silent,), daemon=True).start()
    for _ in range(silent + echoing):
        asked.acquire()
    ready()
    stop.wait()
    return dict(seen)


def _stay(peer: RawPeer, stop: threading.Event, every_s: float | None) -> None:
    try:
        while not stop.is_set():
            if every_s is None:
                if _ended([peer.connection], wait_s=0.2):
                    return
            elif peer.echo() != 0x0000 or stop.wait(every_s):
                return
    except OSError:
        return


# Two headers that open a sequence and an item of undefined length: (0008,1110), then (FFFE,E000)
_NESTED = b"\x08\0\x10\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"


def nested(
    stop: threading.Event, ready: Ready, *, port: int, associations: int, megabytes: int, calling: str, answer_s: float
) -> Report:
    """Send data sets of nothing but nested sequence headers over several associations at once.

    Each sends the next a second after the end of the last. Reports how each ended: a status, `aborted`, or `unanswered`
    where neither came within `answer_s`.
    """
    ends: list[str] = []
    data = data_set(between=_NESTED * (megabytes * 1_000_000 // len(_NESTED)))
    data = data[: data.index(b"\x20\0\x0d\0UI")]  # no sequence is ever closed, and nothing follows

    def send() -> None:
        while not stop.is_set():
            try:
                with RawPeer(port, calling=calling, timeout_s=answer_s) as peer:
                    while not stop.is_set():
                        ends.append(f"{peer.store(b'1.2.3.4', data):04X}")
                        stop.wait(1.0)
            except TimeoutError:
                ends.append("unanswered")
            except Rejected:
                stop.wait(0.2)
            except OSError:
                ends.append("aborted")
                stop.wait(1.0)

    threads = [threading.Thread(target=send) for _ in range(associations)]
    for thread in threads:
        thread.start()
    ready()
    for thread in threads:
        thread.join()
    return {"ends": ends}


# Explicit and Implicit VR Little Endian and lossless JPEG, as a sender proposes them for each of its SOP classes
_SYNTAXES = (EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70")


def requests(
    stop: threading.Event, ready: Ready, *, port: int, calling: str, per_s: float | None, threads: int = 16
) -> Report:
    """Send association requests with 128 presentation contexts, `per_s` in a second or as fast as possible."""
    request = associate_rq(calling=calling, contexts=[(CT, _SYNTAXES)] * 128)
    begun = time.monotonic()
    seen: Counter[str] = Counter()

    def ask(number: int) -> None:
        due = begun + number / (per_s or 1e9)
        while not stop.wait(max(due - time.monotonic(), 0.0)):
            due += threads / (per_s or 1e9)
            try:
                with connect(port) as connection:
                    connection.sendall(request)
                    kind, body = read_pdu(connection)
                    seen[f"{kind:02X}H {tuple(body[1:4])}" if len(body) == 4 else f"{kind:02X}H"] += 1
                    # Resets the connection, so that the ports of this machine do not run out in TIME_WAIT.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            except OSError:
                seen["closed"] += 1

    for number in range(threads):
        threading.Thread(target=ask, args=(number,), daemon=True).start()
    ready()
    stop.wait()
    return {"seen": dict(seen), "per_s": sum(seen.values()) / (time.monotonic() - begun)}


def _stranger(port: int, source: str, greeting: str) -> socket.socket:
    while True:
        try:
            connection = connect(port, source=source)
            connection.sendall(bytes.fromhex(greeting))
            return connection
        except ConnectionError:
            time.sleep(0.05)  # closed between the connection and the greeting


def _ended(connections: list[socket.socket], wait_s: float = 0.0) -> list[socket.socket]:
    """Which of these connections the receiver has closed."""
    ended = []
    poll = select.poll()
    by_number = {connection.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.POLLIN)
    for number, _ in poll.poll(wait_s * 1000):
        try:
            if by_number[number].recv(4096, socket.MSG_DONTWAIT):
                continue
        except BlockingIOError:
            continue
        except ConnectionError:
            pass
        ended.append(by_number[number])
    return ended


_MODES: dict[str, Callable[..., Report]] = {
    mode.__name__: mode for mode in (idle, arriving, associations, nested, requests)
}


def _main(mode: str, options: dict[str, Any]) -> None:
    stop = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()
    report = _MODES[mode](stop, lambda: print("ready", flush=True), **options)  # noqa: T201
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1], json.loads(sys.argv[2]))
