"""`syncect demo` is the first thing that a stranger runs: it says what it does, ends well, or says why it does not."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import nullcontext
from http.cookiejar import CookieJar
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset

from node.demo import node_process, play
from node.demo.folder import DemoFolder
from node.demo.story import Story
from node.dicom.elements import put
from tests.builders import make_series
from tests.slice.harness import quick_command, wait_for

NAME, FILE_NAME = "Secret^Person", "secret-person.dcm"
OWN = "secret person"  # a folder of a reader's is often called so
COMMAND = re.compile(r"^ +(\S+ -m node\.cli --config .*?) +# ", re.MULTILINE)
STEPS = (
    "The scanner makes a scan: 8 slices",
    "A node and a TPS start",
    r"The scanner \(DEMO_CT\) pushes 8 slices",
    "The node works on the series",
    "8 synthetic slices, arrived at the TPS",
    "Look at the picture",
    "What you can look at now",
    "Commands to try",
    "The page of the node",
)


class Run:
    """A demo in a process of its own, its output in a file, or through a pseudo terminal.

    is_real: it and the processes of its node load the program themselves, as those of a reader do.
    """

    def __init__(self, folder: Path, *options: str, terminal: bool = False, is_real: bool = False) -> None:
        self.out, self._log = folder / "demo-out", folder / "output.txt"
        self._keys = -1
        output, inside = self._log.open("wb"), -3
        if terminal:
            self._keys, inside = pty.openpty()
        program = [sys.executable, "-P", "-m", "node.cli"] if is_real else [quick_command()]
        self.process = subprocess.Popen(
            [*program, "demo", *options],
            cwd=folder,
            stdin=inside,
            stdout=inside if terminal else output,
            stderr=inside if terminal else subprocess.STDOUT,
            start_new_session=True,
        )
        self.folder, self._read = folder, b""
        if terminal:
            os.close(inside)
            os.set_blocking(self._keys, False)

    def text(self) -> str:
        """What it said until now."""
        if self._keys < 0:
            return self._log.read_text()
        try:
            while chunk := os.read(self._keys, 65536):
                self._read += chunk
        except OSError:  # nothing more at the moment, or ever
            pass
        return self._read.decode().replace("\r\n", "\n")

    def press_enter(self) -> None:
        os.write(self._keys, b"\n")

    def close(self) -> None:
        """End it, whatever it does: being told to end, it ends its node too."""
        self.process.terminate()
        self.end()

    def end(self) -> int:
        return self.process.wait(240)

    def wait_for_text(self, text: str) -> None:
        wait_for(f"the demo's {text!r}", lambda: text in self.text() or self.process.poll() is not None, 240)
        assert text in self.text(), self.text()

    def commands(self) -> list[str]:
        """Those that it says can be tried."""
        return COMMAND.findall(self.text())

    def try_out(self, command: str) -> subprocess.CompletedProcess[str]:
        """Type one of them where the demo was started, from a program that is loaded."""
        python, words = command.split(" -m node.cli ", 1)
        assert python.split() in ([sys.executable], [sys.executable, "-P"])
        quick = f"{quick_command()} {words}"
        return subprocess.run(quick, shell=True, cwd=self.folder, capture_output=True, text=True, check=False)

    def left(self) -> list[str]:
        """Processes that have to do with the demo's folder and still run."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                files = [str(link.readlink()) for link in (path / "fd").iterdir()]  # of one that is forked
            except OSError:
                continue
            if any(str(self.out) in text for text in (words, *files)):
                found.append(words)
        return found


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A bundle that was trained on smaller pixels than those of these tests, so that its results are HELD."""
    target = tmp_path_factory.mktemp("bundles") / "doubtful"
    shutil.copytree(tiny_bundle, target)
    card = json.loads((target / "bundle.json").read_text())
    card["envelope"] = {**card["envelope"], "pixel_spacing_mm": [0.1, 0.5]}
    (target / "bundle.json").write_text(json.dumps(card))
    return target


def own_series(folder: Path, *, has_agent: bool = False) -> Path:
    """A folder as readers have it: a series in it, a broken file, and names of a patient everywhere."""
    deep = folder / OWN / "deep"
    deep.mkdir(parents=True)
    files = make_series(deep, slices=10, patient_name=NAME, edit=_with_agent if has_agent else None)
    files[0].rename(deep / FILE_NAME)
    (deep / "broken-secret-person.dcm").write_bytes(b"no DICOM")
    return folder / OWN


def _with_agent(dataset: Dataset, _z: int) -> None:
    put(dataset, "ContrastBolusAgent", "agent")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[dict[str, Run]]:
    """Demos without a terminal, all at the same time: each waits half of its time."""
    phantom, skipped = (tmp_path_factory.mktemp(name) for name in ("phantom", "skipped"))
    own_series(skipped, has_agent=True)
    found = {
        "phantom": Run(phantom, "--slices", "8", "--bundle", str(tiny_bundle), is_real=True),
        "skipped": Run(skipped, "--series", OWN, "--bundle", str(tiny_bundle)),
    }
    yield found
    for run in found.values():
        run.close()


def test_a_phantom_goes_to_the_tps_and_every_command_works(runs: dict[str, Run]) -> None:
    run = runs["phantom"]
    assert run.end() == 0, run.text()
    for number, words in enumerate(STEPS, 1):
        assert re.search(rf"^{number}\. {words}", run.text(), re.MULTILINE), run.text()
    assert (run.out / "syncect-demo.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((run.out / "tps").iterdir())) == 8
    commands = [command for command in run.commands() if not command.endswith(" serve")]
    assert len(commands) == 5
    for command in commands:
        answer = run.try_out(command)
        assert answer.returncode == 0, (command, answer.stdout, answer.stderr)


def test_a_held_result_is_released_for_the_reason_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, sent = SimpleNamespace(state="HELD"), SimpleNamespace(state="SENT")
    done: list[str] = []

    def follow(*_: object, passed: str = "") -> object:
        return sent if passed == "HELD" and done else held

    monkeypatch.setattr(play, "follow", follow)
    monkeypatch.setattr(play, "open_store", nullcontext)
    monkeypatch.setattr(play, "release", lambda _node, _case, reason, _story: done.append(reason))
    node: Any = SimpleNamespace(settings=None)
    scan: Any = SimpleNamespace(series_uid="1.2")
    story = Story(lambda _line: None)

    def ended(reason: str) -> object:
        wish = play.Wish(tmp_path, "demo", 8, stay=False, release=reason)
        return play._case(node, node, scan, wish, story)

    assert ended("") is held
    assert ended("I looked at it") is sent
    assert done == ["I looked at it"]


def test_a_skipped_series_is_explained(runs: dict[str, Run]) -> None:
    run = runs["skipped"]
    assert run.end() == 4, run.text()
    assert "SKIPPED: nothing is made of the series" in run.text()
    assert "the reason: a contrast agent was given" in run.text()
    assert not (run.out / "syncect-demo.png").exists()


@pytest.mark.parametrize("name", ["phantom", "skipped"])
def test_no_demo_leaves_a_process_a_control_code_or_a_name(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    run.end()
    assert run.left() == []
    assert "\x1b" not in run.text()
    assert "secret" not in run.text().lower()


def test_on_a_terminal_a_held_result_can_be_looked_at_and_released(tmp_path: Path, doubtful: Path) -> None:
    (other := own_series(tmp_path) / "a contrast series").mkdir()
    make_series(other, slices=10, seed="0", edit=_with_agent)
    run = Run(tmp_path, "--series", OWN, "--bundle", str(doubtful), terminal=True)
    try:
        run.wait_for_text("until you press Enter or Ctrl-C")
        for words in ("1 of 21 files are left out", "10 slices. The node's rules accept its headers", "other:  series"):
            assert words in run.text()
        assert "HELD: the synthetic series is not sent" in run.text()
        assert "pixel spacing 1.000 mm lies outside what the model was trained on" in run.text()
        assert (run.out / "syncect-demo.png").read_bytes().startswith(b"\x89PNG")
        assert list((run.out / "tps").iterdir()) == []
        assert 'start this demo again with --release "why"' in run.text()
        assert "HELD" in _logged_in(run.text())
        (release,) = [command for command in run.commands() if " jobs release 1 " in command]
        assert run.try_out(release).returncode == 0
        wait_for("what was released", lambda: len(list((run.out / "tps").iterdir())) == 10)
        assert "secret" not in run.text().lower()
        run.press_enter()
        assert run.end() == 4
        assert run.left() == []
    finally:
        run.close()


def test_a_signal_while_the_node_is_started_leaves_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def interrupted(*_: object, **__: object) -> object:
        started.append(real(["sleep", "600"]))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    monkeypatch.setattr("node.demo.node_process.subprocess.Popen", interrupted)
    node = node_process.running_node(DemoFolder(tmp_path), 1, Story(lambda _line: None), page=False)
    with pytest.raises(KeyboardInterrupt), node:
        pytest.fail("it went on")
    assert started[0].poll() is not None


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with node_process.ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def _logged_in(text: str) -> str:
    """The first page of the node, opened as the demo says."""
    (address,) = set(re.findall(r"http://127\.0\.0\.1:\d+", text))
    (password,) = re.findall(r"log in as demo, password (\S+)", text)
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    form = browser.open(f"{address}/login").read().decode()
    (token,) = re.findall(r'name="csrf" value="([^"]+)"', form)
    fields = urllib.parse.urlencode({"name": "demo", "password": password, "csrf": token})
    request = urllib.request.Request(f"{address}/login", fields.encode(), {"Origin": address})
    return str(browser.open(request).read().decode())


def test_ctrl_c_ends_every_process_of_a_demo_that_replaces_another(runs: dict[str, Run], tiny_bundle: Path) -> None:
    before = runs["skipped"]
    before.end()
    run = Run(before.folder, "--series", OWN, "--bundle", str(tiny_bundle), "--stay")
    try:
        wait_for("the node's start", lambda: run.process.poll() is not None or len(run.left()) > 1)
        os.kill(run.process.pid, signal.SIGINT)
        assert run.end() == 130, run.text()
        assert "is replaced" in run.text()
        assert f"What was made so far is in {run.out}" in run.text()
        assert run.left() == []
    finally:
        run.close()
