"""Promises of the bundle folder: what is damaged or unknown is refused in words, and identity follows the pixels."""

import dataclasses
import gc
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import models
from models.bundle import (
    BundleCard,
    BundleError,
    Envelope,
    find_bundle,
    list_bundles,
    read_card,
    verify_bundle,
    write_bundle,
)
from models.card_text import render_card
from models.testing import write_tiny_bundle

CARD = BundleCard("x", "1", "syndiff", {"architecture": "ncsnpp"}, {"num_timesteps": 4}, "0" * 64)


def edit(bundle: Path, **changes: object) -> None:
    file = bundle / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_written_bundle_reads_back_equal(tmp_path: Path) -> None:
    card = dataclasses.replace(CARD, metrics=({"name": "identity", "psnr_db": 29.5},), limits=("a", "b"))
    written = write_bundle(tmp_path, card, b"weights", text="# x\n")
    assert read_card(tmp_path) == written == verify_bundle(tmp_path)
    assert (tmp_path / "CARD.md").read_text() == "# x\n"


def test_changed_weights_are_found(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    weights = tmp_path / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match="do not use it"):
        verify_bundle(tmp_path)
    with pytest.raises(BundleError, match="do not use it"):
        models.load_bundle(tmp_path)


def test_what_a_bundle_needs_is_loaded_without_a_search_for_garbage(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching: list[bool] = []
    real = importlib.import_module

    def seen(name: str) -> object:
        searching.append(gc.isenabled())
        return real(name)

    monkeypatch.setattr(importlib, "import_module", seen)
    models.load_bundle(tiny_bundle)
    assert searching
    assert not any(searching)
    assert gc.isenabled()


def test_missing_weights_are_found(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"has no weights\.safetensors"):
        verify_bundle(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"colour": "red"}, "unknown key colour"),
        ({"name": ""}, "name is ''"),
        ({"name": "demo\\nDose: none"}, "name is"),
        ({"version": "1" * 33}, "version is"),
        ({"hu_window": [400, -40]}, "the lower first"),
        ({"hu_window": [float("nan"), 400]}, "the lower first"),
        ({"hu_window": [1]}, "two numbers"),
        ({"matrix": 4}, "matrix is 4"),
        ({"prediction": "guess"}, "allowed are image, residual"),
        ({"residual_scale": 0}, "residual_scale is 0"),
        ({"value_scaling": "log"}, "value_scaling is 'log'"),
        ({"weights_sha256": "abc"}, "64 hexadecimal"),
        ({"envelope": {"planet": "Mars"}}, "envelope may hold only"),
        ({"envelope": {"pixel_spacing_mm": [2.0, 1.0]}}, "two positive numbers"),
        ({"envelope": {"noise_hu": [9.0, 5.0]}}, "envelope.noise_hu is"),
        ({"envelope": {"age_years": [-1, 5]}}, "envelope.age_years is"),
        ({"envelope": {"age_years": "adults"}}, "envelope.age_years is 'adults'"),
        ({"envelope": {"pixel_spacing_mm": [0.0, 1.0]}}, "two positive numbers"),
        ({"envelope": {"slice_spacing_mm": None}}, "must be given"),
        ({"envelope": {"body_parts": "CHEST"}}, "envelope.body_parts must be a list"),
        ({"envelope": {"modality": 5}}, "envelope.modality must be a text"),
        ({"network": []}, "network is"),
    ],
)
def test_a_bad_card_is_refused_in_words(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    write_tiny_bundle(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(BundleError, match=words):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "alchemy"}, "method 'alchemy' is unknown"),
        ({"diffusion": {"num_timesteps": 0}}, "num_timesteps is 0"),
        ({"network": {"architecture": "ncsnpp", "wings": 2}}, "unknown network keys"),
        ({"network": {"architecture": "ncsnpp", "nf": 8}}, "do not fit the network"),
    ],
)
def test_a_card_that_fits_no_network_is_refused_at_load(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    write_tiny_bundle(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(BundleError, match=words):
        models.load_bundle(tmp_path)


def test_a_folder_without_a_card_and_broken_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no model bundle"):
        read_card(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read as JSON"):
        read_card(tmp_path)


def test_digest_follows_what_influences_pixels_and_nothing_else() -> None:
    renamed = dataclasses.replace(CARD, name="y", metrics=({"name": "identity"},), licence="MIT")
    assert renamed.digest == CARD.digest
    for change in ({"weights_sha256": "1" * 64}, {"matrix": 128}, {"hu_window": (-50.0, 400.0)}, {"method": "other"}):
        assert dataclasses.replace(CARD, **change).digest != CARD.digest


def test_the_envelope_is_kept_and_is_no_part_of_the_identity(tmp_path: Path) -> None:
    envelope = Envelope(noise_hu=(4.8, 23.1), age_years=(18, 120), body_parts=("", "CHEST"))
    card = dataclasses.replace(CARD, envelope=envelope)
    write_bundle(tmp_path, card, b"weights", text=render_card(card))
    assert read_card(tmp_path).envelope == envelope
    assert card.digest == CARD.digest
    text = (tmp_path / "CARD.md").read_text()
    assert "noise in soft tissue of 4.8 to 23.1 HU, patients of 18 to 120 years" in text
    assert "BodyPartExamined may be absent, CHEST." in text


def test_a_card_from_before_says_nothing_of_noise_and_age(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    edit(tmp_path, envelope={"modality": "CT", "body_part": "CHEST", "pixel_spacing_mm": [0.8, 1.17]})
    card = read_card(tmp_path)
    assert (card.envelope.noise_hu, card.envelope.age_years, card.envelope.body_parts) == (None, None, None)
    assert "The card says nothing of noise and age." in render_card(card)


def test_bundles_are_found_by_path_and_by_shipped_name(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "mine")
    assert find_bundle(tmp_path / "mine") == tmp_path / "mine"
    assert [path.name for path, _ in list_bundles(tmp_path)] == ["mine"]
    with pytest.raises(BundleError, match="No bundle nowhere"):
        find_bundle("nowhere")
    with pytest.raises(BundleError, match="No bundle"):
        find_bundle("../bundles/demo/..")


def test_the_shipped_demo_bundle_is_whole_small_and_honest() -> None:
    path = find_bundle("demo")
    card = verify_bundle(path)
    assert "demo" in [listed.name for _, listed in list_bundles()]
    assert sum(file.stat().st_size for file in path.iterdir()) < 16_000_000
    assert (card.hu_window, card.matrix) == ((-40.0, 400.0), 256)
    assert {row["name"] for row in card.metrics} >= {"identity", "demo"}
    text = (path / "CARD.md").read_text()
    assert text == render_card(card)
    assert "phantom" in text
    assert "Not for clinical use" in text


def test_importing_models_and_reading_cards_needs_no_torch() -> None:
    code = "import sys, models; models.list_bundles(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
