"""Promises of the cohort folder: what was written is what is read, cut-off runs are no cohorts, damage is found."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.cohort import (
    MANIFEST_FILE,
    CohortError,
    CohortWriter,
    PatientRecord,
    assign_splits,
    open_cohort,
    store_patient,
)
from models.displacement import node_count, upsample_field, warp


def record(name: str = "A1", split: str = "train") -> PatientRecord:
    return PatientRecord(name, "internal", split, shape=(2, 9, 12), spacing_mm=(5.0, 1.0, 1.0), displacement_step_px=4)


def arrays() -> dict[str, np.ndarray]:
    ramp = np.arange(2 * 9 * 12, dtype=np.float32).reshape(2, 9, 12)
    return {
        "ncct": ramp - 100.4,
        "cect": ramp + 20,
        "cect_clean": ramp / 8,
        "labels": (ramp % 7).astype(np.uint8),
        "displacement": np.full((3, 2, 3, 4), 1.5, np.float32),
    }


def write(path: Path, *records: PatientRecord) -> None:
    writer = CohortWriter(path, kind="dicom", provenance={"source": "test"})
    for one in records or (record(),):
        writer.add(one, arrays())
    writer.exclude("X9", "metal artefact")
    writer.close()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, record(), record("B2", "external"))
    cohort = open_cohort(tmp_path)
    assert [p.id for p in cohort.patients] == ["A1", "B2"]
    assert [p.id for p in cohort.split("external")] == ["B2"]
    assert cohort.excluded == (("X9", "metal artefact"),)
    assert cohort.provenance == {"source": "test"}
    patient = cohort.patients[0]
    assert np.array_equal(patient.hu("ncct"), np.rint(arrays()["ncct"]))
    assert np.array_equal(patient.hu("cect_clean", slice(1, 2)), arrays()["cect_clean"][1:])
    assert np.array_equal(patient.labels(), arrays()["labels"])
    assert patient.displacement_mm().shape == (3, 2, 9, 12)
    assert np.all(patient.displacement_mm() == 1.5)
    assert patient.hu("ncct").dtype == np.float32
    assert not patient.has("enhancement")
    patient.verify()


def test_arrays_are_mapped_and_cannot_be_changed_through_the_cohort(tmp_path: Path) -> None:
    write(tmp_path)
    stored = open_cohort(tmp_path).patients[0].stored("ncct")
    assert isinstance(stored, np.memmap)
    assert stored.dtype == np.int16
    with pytest.raises(ValueError, match="read-only"):
        stored[0, 0, 0] = 1


def test_manifest_counts_patients_slices_and_exclusions(tmp_path: Path) -> None:
    write(tmp_path, record(), record("B2"), record("C3", "internal"))
    counts = json.loads((tmp_path / MANIFEST_FILE).read_text())["counts"]
    assert counts["patients"] == {"train": 2, "validation": 0, "internal": 1, "external": 0}
    assert counts["slices"]["train"] == 4
    assert counts["excluded"] == 1


def test_a_run_that_was_cut_off_left_no_cohort(tmp_path: Path) -> None:
    CohortWriter(tmp_path, kind="dicom", provenance={}).add(record(), arrays())
    with pytest.raises(CohortError, match="no cohort"):
        open_cohort(tmp_path)


def test_a_cohort_is_not_overwritten(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(CohortError, match="already"):
        CohortWriter(tmp_path, kind="dicom", provenance={})


def test_damage_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    patient = open_cohort(tmp_path).patients[0]
    file = tmp_path / "patients" / "A1" / "cect.npy"
    np.save(file, np.zeros((2, 9, 12), np.int16))
    with pytest.raises(CohortError, match="cect of patient A1"):
        patient.verify()
    np.save(file, np.zeros((1, 9, 12), np.int16))
    with pytest.raises(CohortError, match="not what"):
        patient.hu("cect")
    file.write_bytes(b"no array")
    with pytest.raises(CohortError, match="cannot be read"):
        patient.hu("cect")
    with pytest.raises(CohortError, match="has no enhancement"):
        patient.hu("enhancement")


@pytest.mark.parametrize("change", [{"schema_version": 9}, {"patients": [{"id": "A"}]}, {"patients": 3}])
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path)
    file = tmp_path / MANIFEST_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CohortError):
        open_cohort(tmp_path)


def test_ids_cannot_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters"):
        store_patient(tmp_path, record("../outside"), arrays())
    write(tmp_path)
    file = tmp_path / MANIFEST_FILE
    file.write_text(file.read_text().replace('"A1"', '"../A1"'))
    with pytest.raises(CohortError, match="unsafe id"):
        open_cohort(tmp_path)


def test_wrong_arrays_are_refused(tmp_path: Path) -> None:
    good = arrays()
    for bad, words in (
        ({"ncct": good["ncct"]}, "no cect"),
        (good | {"wish": good["ncct"]}, "unknown array"),
        (good | {"labels": good["labels"][:1]}, "labels of patient A1"),
    ):
        with pytest.raises(ValueError, match=words):
            store_patient(tmp_path, record(), bad)
    with pytest.raises(ValueError, match="allowed are"):
        store_patient(tmp_path, record(split="mine"), good)
    writer = CohortWriter(tmp_path, kind="dicom", provenance={})
    writer.add(record(), good)
    with pytest.raises(CohortError, match="twice"):
        writer.add(record(), good)


def test_splits_are_70_to_30_by_patient_and_by_seed() -> None:
    ids = [f"P{n}" for n in range(100)]
    first = assign_splits(ids, 1)
    counts = {name: list(first.values()).count(name) for name in ("train", "validation", "internal")}
    assert counts == {"train": 63, "validation": 7, "internal": 30}
    assert assign_splits(ids, 1) == first
    assert assign_splits(ids, 2) != first
    assert sorted(assign_splits(ids[:2], 1).values()) == ["internal", "train"]
    with pytest.raises(ValueError, match="two"):
        assign_splits(ids[:1], 1)


def test_a_field_pulls_from_where_it_points() -> None:
    volume = np.zeros((5, 8, 8), np.float32)
    volume[3, 4, 5] = 100
    field = np.zeros((3, 3, 8, 8), np.float32)
    field[0], field[1], field[2] = 5.0, 2.0, -4.0  # one slice of 5 mm up, 1 px of 2 mm back, 2 px to the right
    moved = warp(volume, field, (5.0, 2.0, 2.0), first_slice=1)
    assert moved.shape == (3, 8, 8)
    assert moved[1, 3, 7] == 100  # 3 is the volume's slice 3, less the first slice 1, less one slice up
    assert moved.sum() == 100
    with pytest.raises(ValueError, match="inside"):
        warp(volume, field, (5.0, 2.0, 2.0), first_slice=3)


def test_fields_are_linear_between_nodes() -> None:
    assert [node_count(n, 4) for n in (1, 4, 5, 9, 512)] == [1, 2, 2, 3, 129]
    nodes = np.zeros((3, 1, 2, 3), np.float32)
    nodes[1, 0, 0] = (0, 4, 8)
    field = upsample_field(nodes, 5, 9, 4)
    assert np.allclose(field[1, 0, 0], np.arange(9))
    assert np.allclose(field[1, 0, :, 8], (8, 6, 4, 2, 0))
    assert not field[0].any()
