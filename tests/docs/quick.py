"""Short commands without the start of a Python each: one process has loaded the program, and forks for each command.

That start was most of what the commands of a page took. A command has a process of its own, with the arguments,
folder, environment, streams and network of the shell that called it. What is not in `SHORT`, such as `serve` and
`train`, is started as a reader starts it. `python -m tests.docs.quick SOCKET` is that process.
"""

import ctypes
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.pages import ROOT

SHORT = (
    "alerts",
    "audit",
    "cohort",
    "config",
    "doctor",
    "evaluate",
    "jobs",
    "models",
    "peers",
    "series",
    "status",
    "support-bundle",
    "users",
)
_REAL = Path(sys.executable).with_name("syncect")
_LOADED = ("node.cli", "node.operate", "node.ops", "node.bootstrap", "storage")
_NOT_LOADED = ("__main__", "migrations")  # they do something when they are loaded
_NAMESPACES = ("user", "net")
_LARGEST_BYTES = 1 << 17

# What a page calls: a Python without its packages, which starts in some milliseconds.
_CLIENT = f"""\
#!{sys.executable} -IS
import json, os, socket, sys

words = sys.argv[3:] if sys.argv[1:2] == ["--config"] else sys.argv[1:]
if not words or words[0] not in {SHORT!r}:
    os.execv({str(_REAL)!r}, sys.argv)
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(SOCKET)
spaces = [os.open(f"/proc/self/ns/{{name}}", os.O_RDONLY) for name in {_NAMESPACES!r}]
message = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [message], [0, 1, 2, *spaces])
answer = server.recv(1)
sys.exit(answer[0] if answer else "the process of this command ended without a word")
"""


@contextmanager
def quick_program(program: Path) -> Iterator[None]:
    """While the block runs, the new file `program` can be called as `syncect`."""
    path = program.with_suffix(".socket")
    server = subprocess.Popen([sys.executable, "-m", "tests.docs.quick", str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        program.write_text(_CLIENT.replace("SOCKET", repr(str(path)), 1))
        program.chmod(0o755)
        yield
    finally:
        server.terminate()
        server.wait()


def _load() -> None:
    for name in _LOADED:
        for found in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if not any(part in found.name for part in _NOT_LOADED):
                importlib.import_module(found.name)
    importlib.import_module("torch")


def _serve(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    sys.stdout.write("listening\n")  # who calls now waits until everything is loaded
    sys.stdout.flush()
    _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that ended
    while True:
        caller, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(caller)
        caller.close()


def _run(caller: socket.socket) -> None:
    """Run one command in this process and end it."""
    code = 70
    try:
        message, streams, _, _ = socket.recv_fds(caller, _LARGEST_BYTES, 3 + len(_NAMESPACES))
        sys.argv, folder, environment = json.loads(message)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.dup2(streams[number], number)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
        for name, descriptor in zip(_NAMESPACES, streams[3:], strict=True):
            _enter(name, descriptor)
        code = _main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        caller.send(bytes([code]))
        os._exit(code)


def _enter(name: str, descriptor: int) -> None:
    """Go to a namespace of the shell, where it is another one than this process has."""
    if os.fstat(descriptor).st_ino != Path(f"/proc/self/ns/{name}").stat().st_ino:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, 0) != 0:
            raise OSError(ctypes.get_errno(), f"the {name} namespace of the shell cannot be entered")


def _main() -> int:
    from node.cli import main

    sys.modules["__main__"].__package__ = None  # by which a usage line would name this module
    try:
        main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1 if left.code else 0
    return 0


if __name__ == "__main__":
    _serve(sys.argv[1])
