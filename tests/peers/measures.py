"""What tests of a receiver under abuse measure, and how they shorten its times."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context

KNOWN = {"ae_title": "SIMULATOR", "host": "127.0.0.1"}
OTHER = {"ae_title": "OTHER", "host": "127.0.0.1"}


def shorten(monkeypatch: pytest.MonkeyPatch, name: str, value: float) -> None:
    """Give a bound of the receiver another value in every module that has it, so that a test need not wait long."""
    homes = [
        module
        for module_name, module in sys.modules.items()
        if module_name.startswith(("node.network.", "node.receive.")) and hasattr(module, name)
    ]
    if not homes:
        pytest.fail(f"the receiver has no bound {name}")
    for module in homes:
        monkeypatch.setattr(module, name, value)


def echo_takes_s(receiver: Any) -> float:
    """How long the known peer needs to associate, to send C-ECHO and to release."""
    ae = AE(ae_title="SIMULATOR")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    begun = time.perf_counter()
    contexts = [build_context("1.2.840.10008.1.1")]
    link = ae.associate("127.0.0.1", receiver.port, contexts=contexts, ae_title="SYNCECT")
    assert link.is_established, "the known peer got no association"
    assert link.send_c_echo().Status == 0x0000
    link.release()
    return time.perf_counter() - begun


@contextmanager
def memory_grows_less_than(megabytes: int) -> Iterator[None]:
    """Bounds what the process needs at most inside the block, beyond what it needed before."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def kilobytes(name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    try:
        reset.write_text("5")  # the peak counts from now on, see proc(5)
    except OSError:
        pytest.skip("this system does not tell the peak memory of a process")
    before = kilobytes("VmRSS")
    yield
    assert kilobytes("VmHWM") - before < megabytes * 1000


def wait_until(is_true: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for what the receiver does in a thread of its own; fail where it has not happened in time."""
    deadline = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def size_bytes(path: Path) -> int:
    """Size of a file of the receiver's, which may be gone already."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
