"""A lock says which process runs; it goes with the process."""

import fcntl
import shutil
import signal
import subprocess
import sys

import pytest

from node.beats import MOST_NUMBERS, Heart, Numbers
from node.ops.processes import AlreadyRunning, Waiting, kill_silent, process_lock, running_processes, working_roles


def test_a_role_is_held_once_and_seen_while_held(tmp_path):
    with process_lock(tmp_path, "work", "1", "cpu"):
        (view,) = running_processes(tmp_path)
        assert (view.role, view.details) == ("work", "cpu")
        with pytest.raises(AlreadyRunning, match="work"), process_lock(tmp_path, "work", "1"):
            pass
        with process_lock(tmp_path, "work", "2"):
            assert len(running_processes(tmp_path)) == 2
    assert running_processes(tmp_path) == []


def test_a_process_changes_what_it_says_of_itself(tmp_path):
    with process_lock(tmp_path, "work", "1", "loading the model") as describe:
        for details in ("demo 1 on the CPU", "out", "demo 1 on a graphics card that has a longer name"):
            describe(details)
            (view,) = running_processes(tmp_path)
            assert view.details == details
    with process_lock(tmp_path, "work", "1", "short"):
        assert [view.details for view in running_processes(tmp_path)] == ["short"]


@pytest.mark.parametrize("lost", ["folder", "file"])
def test_a_process_whose_lock_was_removed_is_seen_again_and_stays_the_only_one(tmp_path, lost):
    with process_lock(tmp_path / "run", "serve", "1") as sign:
        shutil.rmtree(tmp_path / "run") if lost == "folder" else (tmp_path / "run" / "serve-1.lock").unlink()
        sign("at work")
        assert [view.details for view in running_processes(tmp_path / "run")] == ["at work"]
        with pytest.raises(AlreadyRunning), process_lock(tmp_path / "run", "serve", "1"):
            pass
    assert running_processes(tmp_path / "run") == []


def test_a_process_makes_no_folder_where_the_data_are_gone(tmp_path):
    with process_lock(tmp_path / "data" / "run", "serve", "1") as sign:
        shutil.rmtree(tmp_path / "data")
        sign("at work")
    assert not (tmp_path / "data").exists()


def test_a_reader_that_looks_just_then_keeps_no_process_from_its_start(tmp_path, monkeypatch):
    with process_lock(tmp_path, "work", "1"):
        pass
    with (tmp_path / "work-1.lock").open() as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        monkeypatch.setattr("node.ops.processes.time.sleep", lambda _s: fcntl.flock(reader, fcntl.LOCK_UN))
        with process_lock(tmp_path, "work", "1"):
            assert len(running_processes(tmp_path)) == 1


def test_a_killed_process_is_not_seen(tmp_path):
    code = (
        "import pathlib, sys, time; from node.ops.processes import process_lock\n"
        "with process_lock(pathlib.Path(sys.argv[1]), 'work', '1'):\n print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert len(running_processes(tmp_path)) == 1
        process.kill()
    assert running_processes(tmp_path) == []


def test_a_process_that_tries_to_start_again_does_not_work_yet(tmp_path):
    with process_lock(tmp_path, "serve", "1") as sign, process_lock(tmp_path, "receive", "1"):
        assert working_roles(running_processes(tmp_path)) == {"serve", "receive"}
        sign.waiting(
            [Waiting("receive", "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:30+00:00", "its port is taken")]
        )
        assert working_roles(running_processes(tmp_path)) == {"serve"}
        sign.waiting([])
        assert working_roles(running_processes(tmp_path)) == {"serve", "receive"}


def test_a_text_that_a_full_disk_cut_short_hides_no_other_process(tmp_path):
    with process_lock(tmp_path, "receive", "1"), process_lock(tmp_path, "work", "1"):
        (tmp_path / "receive-1.lock").write_text('{"role": "rec')
        assert [view.role for view in running_processes(tmp_path)] == ["work"]


def test_a_reader_sees_what_a_process_works_at_and_for_how_long_it_says_nothing(tmp_path):
    clock_s = [1000.0]
    with process_lock(tmp_path, "work", "1") as sign:
        heart = Heart(sign.beats, clock_s=lambda: clock_s[0])
        heart.beat("", "job 7: translate", 3, 64, 30.0)
        (view,) = running_processes(tmp_path)
        assert view.beats[0].work == "job 7: translate 3 of 64"
        assert view.silent(1029.0) is None
        late = view.silent(1031.0)
        assert late is not None
        assert late.silent_s(1031.0) == 31.0


def test_a_reader_sees_what_a_process_has_counted_as_of_its_last_beat(tmp_path):
    numbers = Numbers()
    with process_lock(tmp_path, "receive", "1") as sign:
        sign.numbers = numbers.all
        heart = Heart(sign.beats)
        for _ in range(2):
            numbers.add("stores", of="0000")
        heart.beat("accepting", "waiting", 0, 0, 60.0)
        (view,) = running_processes(tmp_path)
        assert view.numbers == {"stores:0000": 2}


def test_the_numbers_of_a_busy_process_fit_into_a_page_of_its_file(tmp_path):
    numbers = Numbers()
    with process_lock(tmp_path, "deliver", "1") as sign:
        sign.numbers = numbers.all
        for k in range(2 * MOST_NUMBERS):
            numbers.add("failures", 123456.0, of=f"destination{k}")
        Heart(sign.beats).beat("", "working", 0, 0, 60.0)
        assert (tmp_path / "deliver-1.lock").stat().st_size <= 4096


def test_only_a_process_that_is_silent_for_too_long_is_killed_for_its_lock(tmp_path):
    code = (
        "import pathlib, sys, time; from node.beats import Heart; from node.ops.processes import process_lock\n"
        "with process_lock(pathlib.Path(sys.argv[1]), 'work', '1') as sign:\n"
        " Heart(sign.beats).beat('', 'asleep', 0, 0, float(sys.argv[2])); print('held', flush=True); time.sleep(60)"
    )
    for limit_s, ends in (("600", False), ("-1", True)):
        command = [sys.executable, "-c", code, str(tmp_path), limit_s]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            kill_silent(tmp_path, "deliver", "1")
            kill_silent(tmp_path, "work", "1")
            if not ends:
                assert process.poll() is None
                process.kill()
            assert process.wait(60) == -signal.SIGKILL
