"""`models import` as a person or a script meets it: words, JSON and exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.official_checkpoint import TINY, official_state

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "gen_diffusive_1_500.pth"
    torch.save(official_state(prefix="module."), path)
    return path


def test_an_imported_bundle_can_be_verified_and_says_what_was_found(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    options = ("--matrix", 32, "--hu-window", -100, 300.5, "--timesteps", 2, "--licence", "ours", "--version", "7")
    code, out, err = run(
        "models", "import", "--from", "syndiff", checkpoint, "--out", tmp_path / "own", *options, "--json"
    )
    found = json.loads(out)
    assert code == 0, err
    assert (found["name"], found["version"], found["licence"]) == ("own", "7", "ours")
    assert (found["matrix"], found["hu_window"], found["diffusion"]["num_timesteps"]) == (32, [-100, 300.5], 2)
    assert found["network"] == {"architecture": "ncsnpp", **TINY.to_mapping()}
    assert found["parameters"] == sum(tensor.numel() for tensor in official_state().values())
    code, out, _ = run("models", "verify", tmp_path / "own", "--json")
    assert (code, json.loads(out)["digest"]) == (0, found["digest"])


def test_the_table_names_digest_parameters_and_configuration(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "models", "import", "--from", "syndiff", checkpoint, "--out", tmp_path / "b", "--name", "n", "--matrix", 32
    )
    cells = dict(line.split(maxsplit=1) for line in out.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert code == 0, err
    assert (cells["bundle"].strip(), cells["nf"].strip(), cells["ch_mult"].strip()) == ("n 1", "8", "[1, 2]")
    assert len(cells["digest"].strip()) == 64
    assert int(cells["parameters"].replace(",", "")) > 1000
    assert "not commissioned" in err


def test_nothing_is_overwritten_and_that_has_its_own_exit_code(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    code, _, err = run("models", "import", "--from", "syndiff", checkpoint, "--out", tmp_path, "--matrix", 32)
    assert (code, "not overwritten" in err) == (4, True)
    assert sorted(tmp_path.iterdir()) == [checkpoint]


def test_a_network_file_replaces_inferring_and_must_agree_with_the_matrix(
    run: Run, checkpoint: Path, tmp_path: Path
) -> None:
    network = tmp_path / "network.json"
    network.write_text(json.dumps(TINY.to_mapping() | {"num_timesteps": 8}))
    arguments = ("models", "import", "--from", "syndiff", checkpoint, "--network", network, "--json")
    code, _, err = run(*arguments, "--out", tmp_path / "a", "--matrix", 64)
    assert (code, "says 32" in err) == (2, True)
    code, out, _ = run(*arguments, "--out", tmp_path / "a")
    assert (code, json.loads(out)["diffusion"]["num_timesteps"]) == (0, 8)


def test_a_file_that_is_no_checkpoint_is_one_sentence(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no checkpoint")
    code, out, err = run("models", "import", "--from", "syndiff", file, "--out", tmp_path / "b")
    assert (code, out) == (1, "")
    assert "no PyTorch checkpoint" in err
    assert err.count("\n") == 1
    assert run("models", "import", "--from", "elsewhere", file, "--out", tmp_path / "b")[0] == 2


def test_verify_measures_what_bf16_changes_and_refuses_too_much(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("models", "verify", "demo-1step", "--precision", "--device", "cpu", "--json")
    found = json.loads(out)["bf16_against_fp32"]
    assert code == 0
    assert found["acceptable"] is True
    assert 0 < found["mae_hu"] < found["max_hu"] <= 15

    monkeypatch.setattr("models.evaluation.precision.MAX_DIFFERENCE_HU", found["max_hu"] / 2)
    code, out, err = run("models", "verify", "demo-1step", "--precision", "--device", "cpu")
    assert code == 4
    assert "bf16 against fp32" in out
    assert 'precision = "fp32"' in err
