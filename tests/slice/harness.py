"""A node in processes of its own, and the peers around it, for tests of the whole path."""

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from node.ops.processes import running_processes
from storage.database import Database
from storage.overview import Case, Overview
from tests.conftest import require_program
from tests.quick import quick_program

TIMEOUT_S = 90.0
FEW = 14  # slices
POLL_S = 0.05


def short_limits(idle_s: float, long_s: float) -> str:
    """Loaded by every Python of the node at its start: the limits of a test instead of those of a night."""
    return f"""
import node.beats as beats
beats.IDLE_LIMIT_S = beats.STEP_LIMIT_S = {idle_s}
beats.LONG_LIMIT_S, beats.FIRST_LIMIT_S_PER_SLICE = {long_s}, 0.0
import node.ops.supervisor as supervisor
supervisor.LONGEST_DELAY_S = 0.5
"""


def free_port() -> int:
    """A port on which nobody listens, below those that the kernel gives to connections and above those of Ray.

    What it would give itself, it could give to a connection of any other process before the server has begun.
    """
    while True:
        with socket.socket() as probe, suppress(OSError):
            port = random.SystemRandom().randint(20000, 32000)
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(what: str, probe: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
    """Poll until `probe` returns something true; fails with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(POLL_S)
    return value


def dcmtk(name: str) -> str:
    """DCMTK's program, not pynetdicom's script of the same name in the virtual environment."""
    return require_program(f"DCMTK {name}", f"/usr/bin/{name}", f"/usr/local/bin/{name}", f"/opt/homebrew/bin/{name}")


def push(port: int, source: Path | Iterable[Path], *, calling_ae: str = "CTSIM") -> subprocess.CompletedProcess[str]:
    """Send files as a scanner would, with DCMTK's storescu; lossless JPEG files go as they are."""
    paths = [source] if isinstance(source, Path) else list(source)
    directory = ["+sd", "+r"] if any(path.is_dir() for path in paths) else []
    command = [dcmtk("storescu"), "-aet", calling_ae, "-aec", "SYNCECT", *directory, "127.0.0.1", str(port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, env=environment, check=False)


class StoreScp:
    """DCMTK's storescp as a TPS that can be killed and brought back on the same port and folder."""

    def __init__(self, folder: Path, *, ae_title: str = "TPS", extra: tuple[str, ...] = ()) -> None:
        self.folder, self.ae_title, self.extra = folder, ae_title, extra
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "StoreScp":
        command = [dcmtk("storescp"), "-aet", self.ae_title, "-od", str(self.folder), "-B", "+xa", *self.extra]
        self._process = subprocess.Popen(
            [*command, str(self.port)], stdout=-3, stderr=-3, env={**os.environ, "TCP_NODELAY": "1"}
        )
        return self

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    def clear(self) -> None:
        for path in self.files():
            path.unlink()


class Orthanc:
    """Orthanc as an archive; files are fetched back through its REST API.

    node_port: where it finds the node; settings: further ones of its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        node_port: int = 104,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        program = require_program("orthanc", "/usr/sbin/Orthanc", "Orthanc")
        self.folder, self.ae_title = folder, ae_title
        self.port, self._http = free_port(), free_port()
        folder.mkdir(parents=True)
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder / "db"),
                    "IndexDirectory": str(folder / "db"),
                    "DicomAet": ae_title,
                    "DicomPort": self.port,
                    "HttpPort": self._http,
                    "DicomModalities": {"syncect": ["SYNCECT", "127.0.0.1", node_port]},
                    "RemoteAccessAllowed": False,
                    "Plugins": [],
                    **(settings or {}),
                }
            )
        )
        self.log = folder / "orthanc.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=-3, stderr=log)

        def up() -> bool:
            try:
                return bool(self._get("/system"))
            except OSError:
                return False

        wait_for("Orthanc's start", up)

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def ask(self, path: str, asked: object = None, *, method: str = "POST") -> Any:
        """What its REST API answers to a question, from JSON."""
        body = json.dumps(asked).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self._http}{path}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()}") from None

    def upload(self, path: Path) -> Any:
        """Give it one file by its REST API."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._http}/instances", path.read_bytes(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def knows_node(self, port: int, *, tls: bool = False) -> None:
        """Let it find the node at another port, as the modality `syncect`."""
        node = {"AET": "SYNCECT", "Host": "127.0.0.1", "Port": port, "UseDicomTls": tls, "AllowTranscoding": False}
        self.ask("/modalities/syncect", node, method="PUT")

    def fetch(self, into: Path) -> list[Path]:
        """Every stored instance as a file."""
        into.mkdir()
        paths = []
        for identifier in json.loads(self._get("/instances")):
            path = into / f"{identifier}.dcm"
            path.write_bytes(self._get(f"/instances/{identifier}/file"))
            paths.append(path)
        return paths

    def delete_one(self) -> None:
        """Remove one instance, as a person does who tidies up."""
        identifier = json.loads(self._get("/instances"))[0]
        asked = urllib.request.Request(f"http://127.0.0.1:{self._http}/instances/{identifier}", method="DELETE")
        with urllib.request.urlopen(asked, timeout=10):
            pass

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


AT_START = "LIMITS_OF_A_TEST"
"""Set where the processes of nodes run a Python text at their start, which must come before all that they load."""
# The networks of these tests are tiny: threads would only wait for each other.
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
_ENVIRONMENT.pop("SYNCECT_WEB__ENABLED", None)  # the settings file says whether a node has its page


@cache
def quick_command() -> str:
    """A program as `python -m node.cli`, whose processes need not load all of it again; it ends with the tests."""
    held = ExitStack()
    folder = Path(tempfile.mkdtemp(prefix="syncect-quick-"))
    held.callback(shutil.rmtree, folder)
    held.enter_context(quick_program(folder / "program", is_module=True))
    atexit.register(held.close)
    return str(folder / "program")


class RunningNode:
    """`syncect serve` (or single roles) on its own settings; `kill` is SIGKILL.

    settings: lines of the sections of these names; database_url: of the store, a SQLite file in the data folder by
    default. is_real: each process loads the program itself, as those of a hospital do; else they are forked from one
    that has. With limits of a test (`conftest.limits`) that one is `serve`, which has loaded it with these limits.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Path | str,
        destinations: Iterable[Any],
        *,
        database_url: str = "",
        is_real: bool = False,
        **settings: str,
    ) -> None:
        self.folder, self.port, self._is_real = folder, free_port(), is_real
        self.data_dir, self.config = folder / "data", folder / "node.toml"
        self.url = database_url or f"sqlite:///{self.data_dir / 'syncect.sqlite3'}"
        folder.mkdir(parents=True, exist_ok=True)
        peers = "".join(
            f'[[destination]]\nname = "{peer.ae_title.lower()}"\nae_title = "{peer.ae_title}"\n'
            f'host = "127.0.0.1"\nport = {peer.port}\n'
            for peer in destinations
        )
        completion = settings.get("completion", "quiet_s = 0.6\ngive_up_s = 4.0")
        self.config.write_text(
            f'[node]\ndata_dir = "data"\ndatabase_url = "{database_url}"\n{settings.get("node", "")}\n'
            f'[scp]\nhost = "127.0.0.1"\nport = {self.port}\n{settings.get("scp", "")}\n'
            f"[completion]\n{completion}\n[retention]\nmin_free_gb = 0.05\n"
            f"[web]\n{settings.get('web', 'enabled = false')}\n"
            f'[model]\nbundle = "{bundle}"\ndevice = "cpu"\nprecision = "fp32"\n'
            f'allow_unproven = ["tiny"]\n{settings.get("extra", "")}\n{peers}'
        )
        self._processes: list[subprocess.Popen[bytes]] = []
        self.log = folder / "node.log"

    def start(self, *roles: str) -> "RunningNode":
        for role in roles or ("serve",):
            with self.log.open("ab") as log:
                self._processes.append(
                    subprocess.Popen([*self.command, role], stdout=log, stderr=log, env=_ENVIRONMENT)
                )
        if not roles or "receive" in roles:
            try:
                wait_for("the receiver's start", self._listening)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log.read_text()[-3000:]}") from None
        return self

    @property
    def command(self) -> list[str]:
        is_slow = self._is_real or AT_START in _ENVIRONMENT
        program = [sys.executable, "-m", "node.cli"] if is_slow else [quick_command()]
        return [*program, "--config", str(self.config)]

    def _listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> list[int]:
        """SIGTERM; returns the exit codes."""
        for process in self._processes:
            process.terminate()
        return self.end()

    def end(self) -> list[int]:
        """Wait until what was started has ended; returns the exit codes."""
        codes = [process.wait(60) for process in self._processes]
        self._processes.clear()
        return codes

    def kill(self, role: str) -> int:
        """SIGKILL the process that holds a role; returns its pid."""
        (view,) = [view for view in running_processes(self.data_dir / "run") if view.role == role]
        os.kill(view.pid, signal.SIGKILL)
        return view.pid

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `syncect` command with this node's settings."""
        return subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, check=False, stdin=-3, env=_ENVIRONMENT
        )

    def jobs(self) -> list[dict[str, Any]]:
        """`syncect jobs ls --json`."""
        answer = self.run("jobs", "ls", "--json")
        assert answer.returncode == 0, answer.stderr
        result: list[dict[str, Any]] = json.loads(answer.stdout)
        return result

    def _has_store(self) -> bool:
        """Whether there may be one; a server is only asked for it."""
        return not self.url.startswith("sqlite") or (self.data_dir / "syncect.sqlite3").exists()

    def cases(self) -> list[Case]:
        """What `jobs ls` shows, read in this process (fast enough to poll)."""
        with self._overview() as cases:
            return cases()

    @contextmanager
    def _overview(self) -> Iterator[Callable[[], list[Case]]]:
        """Reads the cases again and again; opening the store anew would cost ten times as much as reading them."""
        if not self._has_store():
            yield list
            return
        database = Database(self.url)
        try:
            yield Overview(database).cases
        finally:
            database.close()

    def wait_for_states(self, *states: str, timeout_s: float = TIMEOUT_S) -> list[Case]:
        """Wait until the cases, oldest first, are in exactly these states."""
        seen: list[str] = []

        def reached() -> list[Case]:
            cases = sorted(read(), key=lambda case: [int(part) for part in case.id.split("-")])
            seen[:] = [f"{case.state} ({case.reason})" for case in cases]
            return cases if [case.state for case in cases] == list(states) else []

        try:
            wait_for("the store", self._has_store, timeout_s)
            with self._overview() as read:
                return wait_for(f"states {states}", reached, timeout_s)
        except AssertionError as error:
            log = self.log.read_text()[-3000:]
            raise AssertionError(f"{error}; they are {seen}\n{log}") from None

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for view in running_processes(self.data_dir / "run"):
            os.kill(view.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Remove the data of a finished test; the files are large."""
        shutil.rmtree(self.folder, ignore_errors=True)
