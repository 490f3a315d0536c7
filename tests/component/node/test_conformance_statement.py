"""The conformance statement: the one in the repository is not stale, and the one of a site says what it set."""

import json
from pathlib import Path

import pytest

from config.settings import Settings
from node.conformance.statement import statement

KEPT = Path(__file__).parents[3] / "deploy" / "conformance.md"


def test_the_statement_of_the_repository_is_the_one_of_the_defaults() -> None:
    made = statement(Settings())
    if KEPT.read_text(encoding="utf-8") != made:
        pytest.fail(f"{KEPT.name} is stale: run `syncect conformance --out deploy/conformance.md`")


@pytest.fixture
def site(config):
    """Settings of a site with every kind of peer; no database answers where they say that one is."""
    config.write_text(
        """
        [node]
        database_url = "postgresql+psycopg://syncect:secret@127.0.0.1:1/none"
        [scp]
        ae_title = "SYNCECT1"
        mpps = true
        allowed_peers = [{ ae_title = "CTSIM1", host = "10.1.2.3" }]
        [scp.tls]
        certificate = "/nowhere/node.pem"
        private_key = "/nowhere/node.key"
        ca = "/nowhere/ca.pem"
        [[destination]]
        name = "tps"
        ae_title = "TPS"
        host = "10.1.2.4"
        confirm = "commitment"
        companions = ["report"]
        """,
        encoding="utf-8",
    )
    return config


def test_a_site_gets_its_own_statement_without_a_store(run, site, tmp_path) -> None:
    target = tmp_path / "statement.md"
    code, out, err = run("conformance", "--out", target)
    assert (code, out, err.split()[0]) == (0, "", "wrote")
    text = target.read_text(encoding="utf-8")
    for row in (
        "| Modality Performed Procedure Step SOP Class | 1.2.840.10008.3.1.2.3.3 | SCP | T1 | accepted |",
        "| Storage Commitment Push Model SOP Class | 1.2.840.10008.1.20.1 | SCU | T1 | accepted |",
        "| Storage of companions: Enhanced SR Storage | SCU | `companions` of a destination has `report` | yes |",
        "| Storage of companions: Segmentation Storage | SCU | `companions` of a destination has `segmentation` | no |",
        "| `scp.allowed_peers` | CTSIM1 |",
        "| receiver | SYNCECT1 | 11112 |",
        "| `scp.tls` | on, profile bcp195-rfc8996 |",
    ):
        assert row in text
    for private in ("10.1.2", "/nowhere", "secret"):
        assert private not in text
    assert not (site.parent / "syncect-data" / "spool").exists()


def test_the_json_has_every_context_of_the_text(run, config) -> None:
    code, out, _ = run("conformance", "--json")
    assert code == 0
    facts, text = json.loads(out), run("conformance")[1]
    assert len(facts["accepted"]) > 150
    for row in (*facts["accepted"], *facts["proposed"]):
        assert f"| {row['sop_class']} |" in text
        assert all(f"({syntax})" in text for syntax in row["syntaxes"])
    by_keyword = {row["keyword"]: row["source"] for row in facts["derived"]}
    assert (by_keyword["SyntheticData"], by_keyword["ImageType"]) == ("`YES`", "`DERIVED\\SECONDARY\\AXIAL`")
    assert by_keyword["SOPInstanceUID"] == "made by the node"
    assert "ContrastBolusAgent" not in by_keyword


def test_a_file_that_cannot_be_written_is_said(run, config, tmp_path) -> None:
    code, _, err = run("conformance", "--out", tmp_path / "none" / "statement.md")
    assert code == 1
    assert "No such file or directory" in err
