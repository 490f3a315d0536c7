"""What a site can read of the gate, and what `process` and `series check` say of a doubtful series."""

import json

import numpy as np
import pytest
from pydicom import dcmread

from config.settings import EligibilitySettings, ModelSettings, NodeSettings, Settings
from node.bootstrap.roles import eligibility_policy
from node.bootstrap.worker import job_options
from node.dicom.companions.make import CompanionMaker
from node.dicom.synthetic_scan import put_number
from node.dicom.uids import UidFactory
from node.receive.rules import RULES
from tests.builders import body_hu, make_series, put_raw
from tests.contract.store_bench import T0
from tests.derived import derived_series


def test_the_rules_are_printed_with_their_source(run, config):
    code, out, _ = run("series", "rules", "--json")
    rows = {row["code"]: row for row in json.loads(out)}
    assert code == 0
    assert list(rows) == [rule.code for rule in RULES]
    assert all(row["source"] and row["reason"] and row["attributes"] for row in rows.values())
    assert (rows["spectral_image"]["outcome"], "VMI" in rows["spectral_image"]["words"]) == ("SKIPPED", True)
    assert rows["metal_artifact_reduction"]["outcome"] == "HELD"
    shown = run("series", "rules")[1]
    assert "PS3.3" in shown
    assert "looks for" in shown


def test_the_rules_are_those_of_the_site(run, config):
    config.write_text(
        '[eligibility]\nmetal_artifact_reduction = "process"\n[[eligibility.rules]]\nkeyword = "BodyPartExamined"\n'
        'op = "equals"\nvalues = ["CHEST"]\nreason = "only chests are translated"\n'
    )
    rows = json.loads(run("series", "rules", "--json")[1])
    assert "metal_artifact_reduction" not in {row["code"] for row in rows}
    assert (rows[-1]["code"], rows[-1]["reason"]) == ("site_rule", "only chests are translated")


def test_a_doubtful_series_is_shown_as_held(run, config, tmp_path):
    make_series(tmp_path / "scan", slices=10, attributes={"SeriesDescription": "Thorax iMAR"})
    code, out, _ = run("series", "check", tmp_path / "scan", "--json")
    (row,) = json.loads(out)["series"]
    assert (code, row["verdict"]) == (0, "HOLD")
    assert row["reason"].startswith("SeriesDescription names IMAR")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"SeriesDescription": "Thorax C+"}, "SeriesDescription names C+"),
        ({"BodyPartExamined": "HEAD"}, "body part HEAD"),
    ],
)
def test_process_holds_what_the_node_would_hold(run, config, tmp_path, attributes, words):
    hu = np.repeat(body_hu(10, 64, 64), 1, axis=0)
    make_series(tmp_path / "scan", hu=hu, attributes=attributes)
    config.write_text('[model]\ndevice = "cpu"\n')
    code, _, err = run("process", tmp_path / "scan", "--out", tmp_path / "out")
    assert code == 4
    assert words in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_settings_reach_the_gate_and_the_job(tmp_path):
    settings = Settings(
        node=NodeSettings(data_dir=tmp_path, timezone="Asia/Tokyo"),
        model=ModelSettings(outside_envelope="warn"),
        eligibility=EligibilitySettings(metal_artifact_reduction="process"),
    )
    options = job_options(settings, T0)
    assert str(options.timezone) == "Asia/Tokyo"
    assert options.outside_envelope == "warn"
    assert eligibility_policy(settings).metal_artifact_reduction == "process"
    plain = job_options(Settings(node=NodeSettings(data_dir=tmp_path)), T0)
    assert (plain.timezone, plain.outside_envelope) == (None, "hold")


def test_pixels_that_contradict_their_header_are_held_by_process_too(run, config, tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("SYNCECT_MODEL__BUNDLE", str(tiny_bundle))
    monkeypatch.setenv("SYNCECT_MODEL__DEVICE", "cpu")
    for path in make_series(tmp_path / "scan", slices=10):
        ds = dcmread(path)
        put_number(ds, "BitsStored", 12)
        put_number(ds, "HighBit", 11)
        put_raw(ds, "PixelData", b"\x00\x50" + bytes(ds["PixelData"].value)[2:])
        ds.save_as(path)
    code, out, err = run("process", tmp_path / "scan", "--out", tmp_path / "out", "--json")
    assert (code, out) == (4, "")
    assert err.startswith("syncect: held, nothing was written: the pixels of 10 slices do not fit BitsStored (12)")
    assert not (tmp_path / "out").exists()


def test_a_series_is_checked_for_a_destination_by_its_profile(run, config, tmp_path):
    config.write_text(
        '[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "h"\nprofile = "eclipse"\n'
        '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "h"\n'
    )
    made = derived_series(tmp_path)  # its pixels are not square
    CompanionMaker(made.folder, UidFactory(), {}).make("segmentation")
    code, out, _ = run("series", "check", made.folder, "--destination", "tps", "--json")
    told = json.loads(out)
    (row,) = told["series"]
    assert (code, told["destination"], told["profile"]) == (4, "tps", "eclipse")
    assert (row["series_uid"], row["slices"], row["verdict"]) == ("2.25.1", 4, "REFUSED")
    (breach,) = row["breaches"]
    assert (breach["rule"]["code"], breach["rule"]["proven"]) == ("square_pixels", False)
    assert breach["found"] == "PixelSpacing is 0.9 by 0.7 mm"
    code, out, _ = run("series", "check", made.folder, "--destination", "tps")
    assert code == 4
    assert "rule square_pixels of profile planning, unproven" in " ".join(out.split())
    assert run("series", "check", made.folder, "--destination", "pacs")[0] == 0


def test_a_check_for_a_destination_needs_one_and_a_folder(run, config, tmp_path):
    config.write_text('[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "h"\n')
    code, _, err = run("series", "check", tmp_path, "--destination", "tpx")
    assert (code, "no destination is named tpx; there are tps" in " ".join(err.split())) == (2, True)
    assert run("series", "check", "1.2.3", "--destination", "tps")[0] == 2
    (tmp_path / "empty").mkdir()
    assert run("series", "check", tmp_path / "empty", "--destination", "tps")[0] == 3


def test_the_rules_of_a_profile_are_printed_with_their_source(run, config):
    code, out, _ = run("series", "rules", "--profile", "eclipse", "--json")
    rows = {row["code"]: row for row in json.loads(out)}
    assert code == 0
    assert (rows["import_log"]["profile"], rows["import_log"]["proven"]) == ("eclipse", True)
    assert rows["slope_of_one"]["proven"] is False
    assert all(row["source"] and row["keywords"] for row in rows.values())
    assert "pytrip issue 193" in run("series", "rules", "--profile", "eclipse")[1]
    assert run("series", "rules", "--profile", "../generic")[0] == 2
