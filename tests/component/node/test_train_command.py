"""`syncect train` as a physicist meets it: killed at night, gone on with in the morning."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from models.cohort import Cohort, CohortWriter, PatientRecord
from models.together import PeerLost
from models.training import UnreadableSlice
from node.cli.train_view import duration, time_left_s


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Four patients of noise, one of them to validate on."""
    writer = CohortWriter(tmp_path_factory.mktemp("cohort"), kind="phantom", provenance={})
    rng = np.random.Generator(np.random.Philox(3))
    for number, split in enumerate(("train", "train", "train", "validation")):
        ncct = rng.normal(40, 60, (8, 32, 32)).astype(np.float32)
        record = PatientRecord(f"P{number}", "H1", split, ncct.shape, (5.0, 1.5, 1.5))
        writer.add(record, {"ncct": ncct, "cect": ncct + 50})
    return writer.close()


def command(cohort: Cohort, run: Path, *more: str) -> list[str]:
    return ["train", "cyclegan", "--cohort", str(cohort.path), "--out", str(run), "--preset", "tiny", *more]


def test_a_killed_run_goes_on_with_the_losses_it_would_have_had(cohort: Cohort, tmp_path: Path, run) -> None:
    code, out, _ = run(*command(cohort, tmp_path / "whole", "--epochs", "4", "--json"))
    assert code == 0
    whole = json.loads(out)
    more = ("--epochs", "4", "--checkpoint-every", "5")
    process = subprocess.Popen(
        [sys.executable, "-m", "node.cli", *command(cohort, tmp_path / "cut", *more)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    assert any(line.startswith("epoch 2:") for line in process.stderr), "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    before = (tmp_path / "cut" / "losses.jsonl").read_text().splitlines()
    assert 24 <= len(before) < 48
    code, out, _ = run(*command(cohort, tmp_path / "cut", *more, "--resume", "--json"))
    assert code == 0
    assert json.loads(out) == whole | {"bundle": str(tmp_path / "cut" / "bundle")}
    losses = [(tmp_path / run / "losses.jsonl").read_text() for run in ("cut", "whole")]
    assert losses[0] == losses[1]


def test_mistakes_are_told_in_a_sentence(cohort: Cohort, tmp_path: Path, run) -> None:
    code, _, err = run(*command(cohort, tmp_path / "a", "--preset", "huge"))
    assert (code, "has no preset huge" in err) == (2, True)
    code, _, err = run(*command(cohort, tmp_path / "b", "--batch-size", "99"))
    assert (code, "a batch of 99 needs" in err) == (2, True)
    code, _, err = run(*command(cohort, tmp_path / "c", "--resume"))
    assert (code, "holds no run" in err) == (2, True)
    code, _, err = run("train", "pix2pix", "--cohort", str(tmp_path), "--out", str(tmp_path / "d"))
    assert (code, "is no cohort" in err) == (1, True)
    code, _, err = run(*command(cohort, tmp_path / "e")[:-2], "--preset", "tiny", "--fold", "2")
    assert (code, "fold is 2 of 0" in err) == (2, True)
    code, _, err = run("train", "pix2pix", "--preset", "tiny")
    assert (code, "needed to train" in err) == (2, True)
    (tmp_path / "run.toml").write_text("method = 'pix2pix'\n[regime]\nepoch = 3\n")
    code, _, err = run("train", "--config", str(tmp_path / "run.toml"), "--write-config")
    assert (code, "regime.epoch is no known key" in err, "Did you mean epochs?" in err) == (2, True, True)


def test_a_file_of_ones_own_is_written_changed_trained_and_gone_on_with(cohort: Cohort, tmp_path: Path, run) -> None:
    code, out, _ = run("train", "pix2pix", "--preset", "tiny", "--write-config", "--seed", "5")
    assert code == 0
    values = tomllib.loads(out)
    assert (values["method"], values["regime"]["seed"], values["regime"]["epochs"]) == ("pix2pix", 5, 2)
    assert "# " in out
    mine = tmp_path / "mine.toml"
    mine.write_text(out.replace("dropout = 0.1", "dropout = 0.3").replace("accumulate = 1", "accumulate = 2"))
    place = ("--cohort", str(cohort.path), "--out", str(tmp_path / "run"))
    code, out, err = run("train", "--config", str(mine), *place, "--epochs", "1", "--device", "cpu", "--json")
    assert code == 0
    assert "12 steps in 1 epoch" in err
    kept = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    regime = kept["regime"]
    assert (kept["model"]["generator"]["dropout"], regime["accumulate"], regime["epochs"]) == (0.3, 2, 1)
    whole = json.loads(out)
    code, out, _ = run("train", *place, "--resume", "--json")  # it knows its settings
    assert (code, json.loads(out)) == (0, whole)
    code, _, err = run("train", *place, "--resume", "--seed", "6")
    assert (code, "was begun with regime.seed 5, not 6" in err) == (2, True)


def test_a_dry_run_tells_what_it_will_take_and_leaves_nothing(cohort: Cohort, tmp_path: Path, run) -> None:
    arguments = ("--dry-run", "--minutes", "30", "--folds", "3")
    code, out, _ = run(*command(cohort, tmp_path / "run", *arguments, "--json"))
    assert code == 0
    told = json.loads(out)
    assert (told["runs"], told["epochs"]) == (3, 2)
    assert min(told[key] for key in ("seconds", "disk_bytes", "memory_bytes", "epochs_in_budget")) > 0
    code, out, _ = run(*command(cohort, tmp_path / "run", *arguments))
    assert (code, "epochs that the minutes allow" in out, list(tmp_path.iterdir())) == (0, True, [])


def test_folds_end_in_a_table(cohort: Cohort, tmp_path: Path, run) -> None:
    words = command(cohort, tmp_path / "cv", "--folds", "2", "--epochs", "1")
    code, out, _ = run(*words, "--fold", "2", "--json")
    assert (code, json.loads(out)["rows"], (tmp_path / "cv" / "fold-1").exists()) == (0, None, False)
    code, out, _ = run(*words, "--resume")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if line][:5] == ["FOLD", "1", "2", "mean", "sd"]
    assert (tmp_path / "cv" / "folds.csv").read_text().startswith("fold,patients,slices,epoch,steps,psnr_db")


def test_the_time_left_is_told_at_the_pace_so_far() -> None:
    assert time_left_s(10.0, 5, 20, None) == 40
    assert time_left_s(10.0, 5, 20, 25.0) == 15
    assert time_left_s(30.0, 5, 20, 25.0) == 0
    assert (duration(3661.4), duration(90000)) == ("1:01:01", "1 day, 1:00:00")


def test_of_several_processes_of_a_host_one_says_what_is_wrong(
    cohort: Cohort, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        code, _, err = run(*command(cohort, tmp_path / "a", "--preset", "huge"))
        assert code == 2
        told.append(err)
    assert "preset is 'huge'" in told[0]
    assert told[1] == ""


@pytest.mark.parametrize(
    "error", [UnreadableSlice("an array cannot be read."), PeerLost("another process ended.")], ids=type
)
def test_each_process_says_what_may_have_kept_it_alone_from_going_on(
    error: Exception, cohort: Cohort, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("models.training.estimate", fails)
    assert run(*command(cohort, tmp_path / "a")) == (1, "", f"syncect: {error}\n")


def test_a_run_reads_its_cohort_from_an_object_store(cohort: Cohort, tmp_path: Path, run) -> None:
    url, cache = f"file://{tmp_path}/store", str(tmp_path / "cache")
    assert run("cohort", "shard", str(cohort.path), url)[0] == 0
    code, out, _ = run("cohort", "fetch", url, "--cache", cache)
    assert code == 0
    assert (Path(out.strip()) / "manifest.json").exists()
    settings = ("--preset", "tiny", "--epochs", "1", "--json")
    code, out, _ = run(
        "train", "cyclegan", "--cohort", url, "--cache", cache, "--out", str(tmp_path / "far"), *settings
    )
    assert code == 0
    code, near, _ = run("train", "cyclegan", "--cohort", str(cohort.path), "--out", str(tmp_path / "near"), *settings)
    assert json.loads(out)["digest"] == json.loads(near)["digest"]


def test_a_cohort_that_is_nowhere_is_told_in_a_sentence(tmp_path: Path, run) -> None:
    for place, words in ((str(tmp_path / "gone"), "no cohort"), ("ftp://somewhere/x", "s3://BUCKET/PREFIX")):
        code, _, err = run("train", "cyclegan", "--cohort", place, "--out", str(tmp_path / "run"))
        assert code in (1, 2)
        assert words in err
