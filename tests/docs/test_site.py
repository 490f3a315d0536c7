"""The site is built without a warning, loads nothing from the network, and has a page for every state and setting."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from docs.builder.__main__ import build
from docs.builder.links import BadLink, pages, turned
from docs.builder.navigation import navigation
from docs.builder.settings import default_file, settings, settings_page
from docs.builder.states import ARROWS_MARK, STEPS_MARK, filled, page_of, states, steps_of
from node.operate.next_steps import NEXT_STEP
from storage.states import RECALLED, DeliveryState, JobState, SeriesState
from tests.docs.pages import ROOT, blocks

STATE_PAGES = ROOT / "docs" / "operate" / "states"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    assert build(folder) == 0
    return folder / "site"


def test_a_browser_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r'<(?:script|img|iframe)[^>]*\bsrc="(?:https?:)?//'
        r'|<link[^>]*rel="?(?:stylesheet|preconnect|preload)[^>]*https?:|@import|url\((?:https?:)?//'
    )
    pages_seen = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages_seen) > 30
    assert not [path for path in pages_seen if loads.search(path.read_text(encoding="utf-8"))]


def test_diagrams_are_pictures(site: Path) -> None:
    diagrams = {path: ElementTree.parse(path).getroot() for path in site.glob("diagrams/*.svg")}
    assert len(diagrams) >= 3
    assert {root.tag for root in diagrams.values()} == {"{http://www.w3.org/2000/svg}svg"}
    assert any("RECEIVING" in "".join(root.itertext()) for root in diagrams.values())
    assert not [
        path for path in site.rglob("*.html") if "mermaid" in path.read_text(encoding="utf-8").split("<main")[0]
    ]
    assert "diagrams/" in (site / "operate" / "states.html").read_text(encoding="utf-8")


def test_the_search_finds_without_a_server(site: Path) -> None:
    assert (site / "search.js").exists()
    assert "assets/iframe-worker.js" in (site / "operate" / "states" / "held.html").read_text(encoding="utf-8")
    assert (site / "assets" / "iframe-worker.js").exists()


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("[a](nothing.md)", "page.md:3: there is no docs/nothing.md"),
        ("[a](../storage/states.py)", "page.md:3: storage/states.py is no page of the site"),
    ],
)
def test_a_link_that_holds_nowhere_is_an_error(link: str, said: str) -> None:
    known = {**pages(), "docs/page.md": "page.md"}
    with pytest.raises(BadLink, match=re.escape(said)):
        turned("docs/page.md", f"# A\n\n{link}\n", known)


def test_links_are_turned_outside_code_only() -> None:
    known = {**pages(), "docs/a/page.md": "a/page.md"}
    text = "[`b`](../../README.md#x) `[b](nothing.md)`\n```text\n[b](nothing.md)\n```\n"
    assert turned("docs/a/page.md", text, known)[0] == text.replace("../../README.md", "../repository/overview.md")


def test_an_anchor_that_does_not_exist_fails_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "repository"
    (copy / "docs" / "reference").mkdir(parents=True)
    (copy / "docs" / "index.md").write_text("# A\n\n[b](reference/b.md#nothing)\n")
    (copy / "docs" / "reference" / "b.md").write_text("# B\n")
    (copy / "docs" / "reference" / "commands.md").write_text("# C\n")
    for module in ("docs.builder.links", "docs.builder.__main__"):
        monkeypatch.setattr(f"{module}.ROOT", copy)
    assert build(tmp_path / "built") != 0
    assert "anchor does not exist" in "".join(capfd.readouterr())


def test_every_state_has_a_page_and_every_page_a_state() -> None:
    machines = (SeriesState, JobState, DeliveryState)
    assert set(states()) == {str(state) for machine in machines for state in machine} | {RECALLED}
    assert {path.name for path in STATE_PAGES.glob("*.md")} == {f"{state.lower()}.md" for state in states()}


def test_states_stand_in_the_order_of_a_series_life(tmp_path: Path) -> None:
    there = [f"operate/states/{name}.md" for name in ("complete", "queued", "receiving")]
    for path in ("operate/states.md", *there):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"# {Path(path).stem}\n")
    found = navigation(tmp_path, {path: path for path in ("operate/states.md", *there)})
    (below,) = found[0]["Operate"][0].values()
    assert [next(iter(one)) for one in below] == ["states", "receiving", "complete", "queued"]


def test_a_section_begins_with_the_index_of_its_first_folder(tmp_path: Path) -> None:
    there = {"bench/index.md": "# Figures", "develop/index.md": "# For the developer", "develop/a.md": "# A"}
    for path, text in there.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (found,) = navigation(tmp_path, {path: path for path in there})
    assert found == {"Develop": ["develop/index.md", {"A": "develop/a.md"}, {"Figures": "bench/index.md"}]}


@pytest.mark.parametrize("state", states())
def test_the_page_of_a_state_has_its_parts(state: str) -> None:
    path = page_of(state)
    text = (ROOT / path).read_text(encoding="utf-8")
    parts = ("# " + state, "**How long.**", "## How you see it", "## What you do", "## What the planner sees")
    assert not [part for part in (*parts, ARROWS_MARK) if part not in text]
    assert text.split("\n\n")[1].startswith("**Do this.** "), "what to do stands first, for who has no time to read"
    assert (STEPS_MARK in text) == (state in NEXT_STEP)
    assert [block for block in blocks(path) if block.language == "sh"]
    assert "<!--" not in filled(path, text)


@pytest.mark.parametrize("state", NEXT_STEP)
def test_each_state_that_a_reader_sees_has_its_next_steps(state: str) -> None:
    assert steps_of(state).count("\n") >= 2


def test_every_setting_of_the_file_stands_in_the_reference_with_a_sentence() -> None:
    page = settings_page()
    assert not [f"{one.section}.{one.key}" for one in settings() if not one.meaning.endswith(".")]
    keys = set(re.findall(r"^(?:# )?([a-z_]+) = ", default_file(), re.MULTILINE))
    assert keys == {one.key for one in settings()}
    assert not [key for key in keys if f"| `{key}`" not in page]
    assert not [line for line in page.splitlines() if "<" in line.replace("<br>", "")], "a browser shows no <WORD>"
    assert not [one.key for one in settings() if one.meaning[0].islower()]


def test_the_program_of_the_site_is_there() -> None:
    assert shutil.which("zensical", path=str(ROOT / ".venv" / "bin"))
