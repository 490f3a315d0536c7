"""A released file says who overruled which doubt, and is the held file in everything else."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread

from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.volume import read_volume
from node.errors import Permanent
from node.translate.job import JobOptions, JobResult, run_job
from node.translate.proof import ProofFailed
from node.translate.release import override_sentence, write_released
from tests.builders import FakeTranslator, make_series
from tests.damages import OF_A_FILE, a_link_to_a_device, grown

DOUBT = "the scan looks enhanced: 12 ml above 180 HU"
COMMENT_ROOM = 10240


@pytest.fixture
def held(tmp_path: Path) -> JobResult:
    """A derived series of three slices, as a job writes it."""
    (tmp_path / "held").mkdir()
    (tmp_path / "released").mkdir()
    options = JobOptions(EquipmentIdentity(software_version="0.1.0"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    source = make_series(tmp_path / "source", slices=3, raw={"PatientName": "Bär^Jürgen".encode("latin-1")})
    return run_job(source, FakeTranslator(), options, tmp_path / "held")


def files(result: JobResult) -> list[tuple[Path, str]]:
    return [(made.path, made.sha256) for made in result.files]


def test_the_sentence_stands_in_every_file_and_nothing_else_changed(held: JobResult, tmp_path: Path) -> None:
    digests = write_released(files(held), DOUBT, "operator mia", "seen by Dr Wu, no agent", tmp_path / "released")
    said = f"HELD: {DOUBT}. Released by operator mia: seen by Dr Wu, no agent"
    for made, digest in zip(held.files, digests, strict=True):
        before, after = dcmread(made.path), dcmread(tmp_path / "released" / made.path.name)
        assert after.DerivationDescription == f"{before.DerivationDescription} {said}"
        assert digest != made.sha256
        del before.DerivationDescription, after.DerivationDescription
        assert before == after
        assert before.file_meta == after.file_meta
        assert after.PixelData == before.PixelData
    one, two = (
        read_volume([folder / p.name for p, _ in files(held)]) for folder in (tmp_path / "held", tmp_path / "released")
    )
    assert one.headers[0].sop_instance_uid == two.headers[0].sop_instance_uid
    assert (one.stored == two.stored).all()


def test_the_files_are_byte_equal_but_for_one_value(held: JobResult, tmp_path: Path) -> None:
    write_released(files(held), DOUBT, "operator mia", "ok", tmp_path / "released")
    path = held.files[0].path
    old, new = path.read_bytes(), (tmp_path / "released" / path.name).read_bytes()
    text = str(dcmread(path).DerivationDescription).encode()
    at = old.index(text)
    assert new[: at - 2] == old[: at - 2]
    rest = len(old) - at - len(text) - len(text) % 2
    assert new[-rest:] == old[-rest:]


def test_the_held_files_stay_as_they_are(held: JobResult, tmp_path: Path) -> None:
    before = {made.path: made.path.read_bytes() for made in held.files}
    write_released(files(held), DOUBT, "operator mia", "ok", tmp_path / "released")
    assert {path: path.read_bytes() for path in before} == before


def test_a_file_that_is_not_the_one_that_was_produced_is_not_released(held: JobResult, tmp_path: Path) -> None:
    path = held.files[1].path
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ProofFailed, match="is not the file that was produced"):
        write_released(files(held), DOUBT, "operator mia", "ok", tmp_path / "released")


@pytest.mark.parametrize("damage", [*OF_A_FILE, a_link_to_a_device, grown])
def test_whatever_lies_in_the_place_of_a_file_ends_the_release_at_once(held: JobResult, tmp_path: Path, damage) -> None:
    damage(held.files[1].path)
    with pytest.raises(ProofFailed, match="retry the job"):
        write_released(files(held), DOUBT, "operator mia", "ok", tmp_path / "released")


def test_without_room_in_the_description_the_comment_says_it(held: JobResult, tmp_path: Path) -> None:
    path = held.files[0].path
    ds = dcmread(path)
    ds.DerivationDescription = "x" * 900
    ds.save_as(path)
    from node.translate.proof import flush_and_digest

    write_released([(path, flush_and_digest(path))], DOUBT, "operator mia", "ok", tmp_path / "released")
    after = dcmread(tmp_path / "released" / path.name)
    assert after.DerivationDescription == "x" * 900
    assert after.ImageComments.endswith("Released by operator mia: ok")
    ds.ImageComments = "y" * COMMENT_ROOM
    ds.save_as(path)
    with pytest.raises(Permanent, match="no room"):
        write_released([(path, flush_and_digest(path))], DOUBT, "operator mia", "ok", tmp_path / "released")


@pytest.mark.parametrize(
    ("doubt", "reason", "kept"),
    [
        ("short", "fine", "HELD: short. Released by operator mia: fine"),
        ("ends with a stop.", "fine", "HELD: ends with a stop. Released by operator mia: fine"),
        ("größer", "Müller hat's gesehen", "HELD: gro?er. Released by operator mia: Muller hat's gesehen"),
        ("a\x1b[31mred", "line\nbreak\\value", "HELD: a?[31mred. Released by operator mia: line break/value"),
        ("[bold]x[/bold]", ":smile: 甲", "HELD: [bold]x[/bold]. Released by operator mia: :smile: ?"),
    ],
)
def test_what_a_person_typed_is_plain_ascii_in_the_files(doubt: str, reason: str, kept: str) -> None:
    assert override_sentence(doubt, "operator mia", reason) == kept


@pytest.mark.parametrize("limit", [240, 300, 1024])
@pytest.mark.parametrize(("doubt", "reason"), [(5000, 5), (5, 5000), (5000, 5000), (130, 100)])
def test_a_long_doubt_or_reason_is_cut_to_what_fits(doubt: int, reason: int, limit: int) -> None:
    said = override_sentence("d" * doubt, "operator mia", "r" * reason, limit)
    assert len(said) <= limit
    assert "Released by operator mia: " in said
    assert said.count("r" * min(reason, 100)) == 1 or reason > 100
    assert "d" * min(doubt, 30) in said


@pytest.mark.parametrize(
    ("charset", "name", "kept"),
    [
        ("ISO_IR 100", "Jörg Größe", "Jörg Größe"),
        ("ISO_IR 101", "Żaneta Łoś", "Żaneta Łoś"),
        ("ISO_IR 144", "Анна Müller", "Анна Muller"),
        ("ISO_IR 192", "Анна 山田 Müller", "Анна 山田 Müller"),
        ("GB18030", "张伟", "张伟"),
        ("", "Jörg Größe", "Jorg Gro?e"),
        ("ISO_IR 13", "山田", "??"),
        ("ISO 2022 IR 6\\ISO 2022 IR 87", "山田 Jörg", "?? Jorg"),
    ],
)
def test_the_name_of_who_released_it_stands_there_in_the_character_set_of_the_object(
    tmp_path: Path, charset: str, name: str, kept: str
) -> None:
    for folder in ("held", "released"):
        (tmp_path / folder).mkdir()
    options = JobOptions(EquipmentIdentity(software_version="0.1.0"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    source = make_series(tmp_path / "source", slices=1, attributes={"SpecificCharacterSet": charset})
    made = run_job(source, FakeTranslator(), options, tmp_path / "held")
    write_released(files(made), DOUBT, f"operator {name} (jg)", "gut, größer", tmp_path / "released")
    written = dcmread(tmp_path / "released" / made.files[0].path.name)
    assert f"Released by operator {kept} (jg): gut, gr" in written.DerivationDescription


def test_an_actor_with_a_long_name_leaves_room_for_the_reason() -> None:
    said = override_sentence("d" * 500, "operator " + "n" * 500, "checked", 240)
    assert len(said) <= 240
    assert said.endswith(": checked")


def test_releasing_needs_neither_torch_nor_highdicom() -> None:
    code = "import sys, node.translate.release; print({'torch', 'highdicom', 'SimpleITK'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
