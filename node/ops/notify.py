"""What `serve` tells systemd (sd_notify): READY once the receiver takes associations, and WATCHDOG with each turn.

Without NOTIFY_SOCKET in the environment, which only a unit of Type=notify has, nothing is said.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from node.beats import Beating
from node.ops.processes import running_processes

SOCKET: Final = "NOTIFY_SOCKET"  # of the environment


def notifying(beat: Beating, run_dir: Path) -> Beating:
    """This beat of the supervisor, which also tells systemd that it lives and, once, that the receiver works."""
    address = os.environ.get(SOCKET, "")
    if not address:
        return beat
    is_ready = False

    def beat_and_tell(line: str, stage: str, done: int, total: int, limit_s: float) -> None:
        nonlocal is_ready
        beat(line, stage, done, total, limit_s)
        if not is_ready and _is_receiving(run_dir):
            is_ready = _tell(address, "READY=1")
        _tell(address, "WATCHDOG=1")

    return beat_and_tell


def _is_receiving(run_dir: Path) -> bool:
    """Whether the receiver has begun its work: it beats only while it listens."""
    return any(view.role == "receive" and view.beats for view in running_processes(run_dir))


def _tell(address: str, words: str) -> bool:
    """Say something to systemd without ever waiting for it; whether it was taken."""
    name = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.setblocking(False)
        link.sendto(words.encode(), name)
        return True
    return False
