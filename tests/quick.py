"""Processes of `syncect` without the start of a Python each: one process has loaded the program, and forks for each.

That start was most of what a command of a test took, and a node starts six processes. A command has a process of its
own, with the arguments, folder, environment, streams and network of whoever called it; so has each role that a node
starts. What is loaded once is not what such a test looks at: `test_whole_path`, `test_demo` and the tests of deploy/
start nodes as a hospital does. `python -m tests.quick SOCKET` is the process that has loaded all.
"""

import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
_LOADED = ("node.cli", "node.operate", "node.ops", "node.bootstrap", "storage")
_NOT_LOADED = ("__main__", "migrations")  # they do something when they are loaded
_ALSO_LOADED = ("torch", "models.translators.syndiff", "node.bootstrap.worker", "highdicom")
_NAMESPACES = ("user", "net")
_LARGEST_BYTES = 1 << 17
FORKS_ROLES = "\nfrom tests.quick import fork_roles\nfork_roles()\n"
"""Python text for the start of a `serve` that is not forked itself: it forks its roles."""
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MODULE = ["-m", "node.cli"]
_FORKING = {"serve", "demo"}

# What is called: a Python without its packages, which starts in some milliseconds, and ends as its process ends.
_CLIENT = f"""\
#!{sys.executable} -IS
import json, os, signal, socket, sys

words = sys.argv[3:] if sys.argv[1:2] == ["--config"] else sys.argv[1:]
if QUICK and (not words or words[0] not in QUICK):
    os.execv(REAL[0], REAL + sys.argv[1:])
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(SOCKET)
spaces = [os.open(f"/proc/self/ns/{{name}}", os.O_RDONLY) for name in {_NAMESPACES!r}]
message = json.dumps([[NAME, *sys.argv[1:]], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [message], [0, 1, 2, *spaces])
for number in {[int(number) for number in _PASSED_ON]!r}:
    signal.signal(number, lambda number, _frame: server.send(bytes([number])))
answer = server.recv(100)
if not answer:
    sys.exit("the process that had loaded the program has ended")
code = int(answer)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def quick_program(program: Path, *, quick: Sequence[str] = (), is_module: bool = False) -> Iterator[None]:
    """While the block runs, the new file `program` can be called as `syncect`, or as `python -m node.cli`.

    quick: the commands that are, if not all; another one is started as a reader starts it.
    """
    path = program.with_suffix(".socket")
    real = [sys.executable, *_MODULE] if is_module else [str(Path(sys.executable).with_name("syncect"))]
    command = [sys.executable, "-m", "tests.quick", str(path)]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        names = {"SOCKET": str(path), "QUICK": tuple(quick), "REAL": real}
        names["NAME"] = str(ROOT / "node" / "cli" / "__main__.py") if is_module else str(program)
        head, body = _CLIENT.split("\n", 1)
        program.write_text("\n".join([head, *(f"{name} = {value!r}" for name, value in names.items()), body]))
        program.chmod(0o755)
        yield
    finally:
        server.terminate()
        server.wait()


def fork_roles() -> None:
    """From now on this process forks the roles that it starts."""
    subprocess.Popen = _RoleOrProgram  # type: ignore[misc]


def _load() -> None:
    from models.process import settle_process

    settle_process()
    for name in _LOADED:
        for found in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}."):
            if not any(part in found.name for part in _NOT_LOADED):
                importlib.import_module(found.name)
    for name in _ALSO_LOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _serve(path: str) -> None:
    """Fork for each caller, pass signals on to that process, and tell how it ended; a caller's end ends it.

    The end of the tests, at which standard input closes, ends all.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    sys.stdout.write("listening\n")  # who calls now waits until everything is loaded
    sys.stdout.flush()
    _load()
    woken, waker = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[socket.socket, int] = {}
    while True:
        for ready in select.select([sys.stdin, listener, woken, *running], [], [])[0]:
            if ready is sys.stdin:
                for pid in running.values():
                    os.kill(pid, signal.SIGKILL)
                return
            if ready is listener:
                caller, _ = listener.accept()
                if pid := _forked(caller):
                    running[caller] = pid
            if ready is woken:
                woken.recv(100)
            elif ready in running:
                os.kill(running[ready], (ready.recv(1) or b"\x09")[0])  # a caller that is gone was killed
        _tell_ends(running)


def _tell_ends(running: dict[socket.socket, int]) -> None:
    for caller, pid in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with caller:
                del running[caller]
                try:
                    caller.send(str(os.waitstatus_to_exitcode(status)).encode())
                except OSError:  # it is gone
                    continue


def _forked(caller: socket.socket) -> int:
    """The process for a caller; 0 where the caller has gone before it had said what it wants."""
    message, descriptors, _, _ = socket.recv_fds(caller, _LARGEST_BYTES, 3 + len(_NAMESPACES))
    if not message:
        return 0
    *streams, user, net = descriptors
    words, folder, environment = json.loads(message)
    pid = os.fork()
    if pid == 0:
        for name, descriptor in zip(_NAMESPACES, (user, net), strict=True):
            _enter(name, descriptor)
        os.chdir(folder)
        _be(words, environment, streams)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _enter(name: str, descriptor: int) -> None:
    """Go to a namespace of the caller, where it is another one than this process has."""
    if os.fstat(descriptor).st_ino != Path(f"/proc/self/ns/{name}").stat().st_ino:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, 0) != 0:
            raise OSError(ctypes.get_errno(), f"the {name} namespace of the shell cannot be entered")


def _be(words: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> NoReturn:
    """Be the process of one command to its end, in a process that was just forked; stream -1: as it is already."""
    code = 70
    try:
        _take(streams)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = list(words)
        variables = dict(environment)
        os.environ.clear()
        os.environ.update(variables)
        fork_roles()
        code = _main()
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the end of a Python does
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _take(streams: Sequence[int]) -> None:
    """Have these streams and no other file of the process that forked.

    Its other descriptors lead nowhere and stay taken: objects that were copied with it may still close them.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number, stream in enumerate([stream if stream < 0 else os.dup(stream) for stream in streams]):
        if stream >= 0:
            os.dup2(stream, number)
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) > 2 and int(path.name) != nowhere and path.exists():  # what listed them is closed again
            os.dup2(nowhere, int(path.name), inheritable=False)
    is_screen = os.isatty(1)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", 1 if is_screen else -1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _main() -> int:
    from node.cli import main

    # By which a usage line would name this module.
    is_module = sys.argv[0].endswith("__main__.py")
    sys.modules["__main__"].__package__ = "node.cli" if is_module else None
    try:
        main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1 if left.code else 0
    return 0


class _RoleOrProgram(subprocess.Popen[Any]):
    """What `serve` and `demo` start of the program is forked too; all else is started as ever.

    So is the completion that a receiver starts beside itself: SQLite keeps what a process has open, and a fork of a
    process with an open store could not use it.
    """

    _NAMES = tuple(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]  # type: ignore[attr-defined]

    def _execute_child(self, *given: Any) -> None:
        asked = dict(zip(self._NAMES, given, strict=True))
        words = [] if isinstance(asked["args"], str) else list(asked["args"])
        is_ours = words[:1] == [sys.executable] and set(_MODULE) < set(words)
        if not is_ours or not _FORKING & set(sys.argv):
            super()._execute_child(*given)  # type: ignore[misc]
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            program = str(ROOT / "node" / "cli" / "__main__.py")
            streams = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
            if asked["start_new_session"]:
                os.setsid()
            _be([program, *words[words.index("node.cli") + 1 :]], asked["env"] or os.environ, streams)
        self._child_created = True
        ends = [asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


if __name__ == "__main__":
    _serve(sys.argv[1])
