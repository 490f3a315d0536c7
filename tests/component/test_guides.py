"""What the guides in docs/ say of the code is what the code says."""

import re
import tomllib
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from models.registry import METHODS
from node.cohorts.pairs import Why
from node.translate.quality import RULES, limit_words
from tests.pictures import IMAGES, SHOWN, keep_pictures

ROOT = Path(__file__).parents[2]
GUIDES = sorted(
    page for area in ("plan", "physics", "train", "develop") for page in (ROOT / "docs" / area).glob("*.md")
)
FILE = re.compile(r"`((?:bench|config|deploy|docs|models|node|storage|tests)/[\w./*-]*)(?:::(\w+))?`")
CONSTANT = re.compile(r"^\| .*\| ([^|]*) \| `((?:node|models)\.[\w.]+)\.([A-Z][A-Z\d_]*)` \|", re.MULTILINE)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
PHYSICS = (ROOT / "docs/physics/index.md").read_text(encoding="utf-8")
DOUBT = (ROOT / "docs/physics/doubt.md").read_text(encoding="utf-8")


def named_files() -> list[tuple[str, str, str]]:
    """Each file that a guide or CONTRIBUTING.md names, with the test in it, if any."""
    pages = [*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "docs/reference/interoperability.md"]
    found = [(page, FILE.findall(page.read_text(encoding="utf-8"))) for page in pages]
    return [(page.name, path, test) for page, paths in found for path, test in paths]


def wrong_names(named: list[tuple[str, str, str]]) -> list[str]:
    """What of them is not in the repository."""
    wrong = []
    for page, path, test in named:
        there = list(ROOT.glob(path)) if "*" in path else [ROOT / path]
        if not there or not there[0].exists():
            wrong.append(f"{page}: {path}")
        elif test and not re.search(rf"^def {test}\(", there[0].read_text(encoding="utf-8"), re.MULTILINE):
            wrong.append(f"{page}: {path}::{test}")
    return wrong


def test_every_file_and_test_that_a_guide_names_is_there():
    named = named_files()
    assert len({test for _, _, test in named if test}) > 20
    assert wrong_names(named) == []


@pytest.mark.parametrize(
    ("path", "test"),
    [("node/dicom/gone.py", ""), ("tests/component/test_guides.py", "test_gone"), ("node/*/gone.py", "")],
)
def test_a_file_or_test_that_is_gone_is_seen(path: str, test: str):
    assert wrong_names([("page", path, test)]) != []


def test_every_promise_has_a_test():
    text = (ROOT / "docs/develop/invariants.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \|.*$", text, re.MULTILINE)
    assert rows == [str(number) for number in range(1, 13)]
    assert all("::test_" in row for row in re.findall(r"^\| \d+ \|.*$", text, re.MULTILINE))


def test_the_import_layers_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = {contract["containers"][0]: contract["layers"] for contract in contracts if "containers" in contract}
    text = (ROOT / "docs/develop/index.md").read_text(encoding="utf-8")
    assert f"`{' > '.join(layers['node'])}`" in text


def said_and_meant() -> list[Any]:
    """Each limit in the tables of the physics guide: the name of its constant, the numbers said, those in the code."""
    rows = []
    for said, module, name in CONSTANT.findall(PHYSICS + DOUBT):
        value = getattr(import_module(module), name)
        numbers = [float(number) for number in NUMBER.findall(re.sub(r"`[^`]*`", "", said))]
        scale = 100.0 if "%" in said else 1.0
        meant = [scale * float(one) for one in (value if isinstance(value, tuple) else (value,))]
        rows.append(pytest.param(numbers, meant, id=name))
    return rows


@pytest.mark.parametrize(("said", "meant"), said_and_meant())
def test_each_limit_in_the_physics_guide_is_that_of_the_code(said: list[float], meant: list[float]):
    assert said == pytest.approx(meant)


@pytest.mark.parametrize("module", ["node.translate.change", "models.evaluation.precision"])
def test_the_physics_guide_leaves_no_limit_out(module: str):
    limits = {name for name in vars(import_module(module)) if name.isupper() and not name.startswith("_")}
    assert limits
    assert limits <= {name for _, where, name in CONSTANT.findall(PHYSICS + DOUBT) if where == module}


def test_the_page_of_doubt_tells_every_rule_of_the_gate_with_its_limit():
    table = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", DOUBT, re.MULTILINE)
    assert table == [(rule.figure, limit_words(rule.low, rule.high, rule.unit)) for rule in RULES]


def test_each_step_of_the_sampler_is_that_of_the_code():
    from models.diffusion import DiffusionConfig, make_schedule

    schedule = make_schedule(DiffusionConfig())
    rows = re.findall(r"^\| ([0-3]) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PHYSICS, re.MULTILINE)
    meant = zip(schedule.c1, schedule.c2, schedule.variance, schedule.signal[1:], strict=True)
    assert [tuple(map(float, row[1:])) for row in rows] == [pytest.approx(step, abs=5e-7) for step in meant]


def test_the_train_guide_names_every_method_preset_and_exclusion():
    index, cohort = ((ROOT / "docs/train" / name).read_text(encoding="utf-8") for name in ("index.md", "cohort.md"))
    _, _, presets = index.partition("## Choose a preset")
    table, _, _ = presets.partition("A method does not")
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == {preset for row in METHODS.values() for preset in row.presets}
    assert set(re.findall(r"^\| `(\w+)` \|", index.partition("## Choose a preset")[0], re.MULTILINE)) == {*METHODS}
    assert set(re.findall(r"^\| `(\w+)` \|", cohort, re.MULTILINE)) == {*Why}


def test_every_picture_is_shown_somewhere_and_only_once_in_the_repository():
    pages = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("bench/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    kept = {path.name for path in IMAGES.glob("*.png")}
    assert {f"{name}.png" for name in SHOWN.values()} <= kept
    assert [name for name in sorted(kept) if f"images/{name}" not in text] == []
    digests = [
        sha256(path.read_bytes()).hexdigest()
        for folder in ("deploy", "docs")
        for path in ROOT.glob(f"{folder}/**/*.png")
    ]
    assert len(set(digests)) == len(digests) >= len(kept)


def test_pictures_of_a_browser_test_that_did_not_run_are_not_kept(tmp_path: Path):
    with pytest.raises(SystemExit, match="is missing"):
        keep_pictures(tmp_path / "story", tmp_path)
    assert not [*tmp_path.iterdir()]
