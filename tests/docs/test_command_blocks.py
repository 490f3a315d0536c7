"""Every command block of the documents is run, page by page, from top to bottom."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docs.not_run import NOT_RUN
from tests.docs.pages import LANGUAGES, Block, blocks, documents, prose
from tests.docs.shell import Command, bare, commands, run_page

ALONE = {"docs/quickstart.md"}  # it has a test of its own, with Orthanc


def commands_of(page: str) -> list[Command]:
    return [command for block in blocks(page) if block.language == "sh" for command in commands(block)]


COMMANDS = {page: found for page in documents() if (found := commands_of(page))}


@pytest.fixture(scope="session")
def runs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, "Future[tuple[int, str]]"]]:
    """All pages, two at a time: most of what they do is to wait for the start of a Python."""
    folder = tmp_path_factory.mktemp("pages")
    with ThreadPoolExecutor(2) as pool:
        wanted = [page for page in COMMANDS if page not in ALONE]
        yield {
            page: pool.submit(run_page, COMMANDS[page], world, folder / page.replace("/", "-").removesuffix(".md"))
            for page in wanted
        }


@pytest.mark.parametrize("page", [page for page in COMMANDS if page not in ALONE])
def test_the_commands_of_a_page_do_what_it_says(page: str, runs: dict[str, "Future[tuple[int, str]]"]) -> None:
    code, said = runs[page].result()
    assert code == 0, said[-4000:]


@pytest.mark.parametrize("page", documents())
def test_a_block_says_what_it_is(page: str) -> None:
    odd = [f"{page}:{block.line}: {block.language!r}" for block in blocks(page) if block.language not in LANGUAGES]
    assert not odd, f"commands are ```sh, what is printed is ```text; known are {sorted(LANGUAGES)}"


@pytest.mark.parametrize("page", documents())
def test_no_block_is_made_by_indentation(page: str) -> None:
    lines = prose(page).splitlines()
    starts = [n for n in range(1, len(lines)) if lines[n].startswith("    ") and not lines[n - 1].strip()]
    assert not [f"{page}:{n + 1}: {lines[n]}" for n in starts if not lines[n].lstrip().startswith(("-", "*"))]


def test_what_is_not_run_still_stands_in_a_page() -> None:
    written = {bare(command.text) for found in COMMANDS.values() for command in found}
    assert not NOT_RUN.keys() - written


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("syncect jobs show 99", "exit code 3, not 0"),
        ("syncect jobs ls  # exit code 2", "exit code 0, not 2"),
        ("syncect jobs sl", "exit code 2, not 0"),
        ("make nothing-of-this-name", "exit code 2, not 0"),
        ("exit 0", ""),
    ],
)
def test_a_wrong_line_is_found(line: str, said: str, world: Path, tmp_path: Path) -> None:
    planted = Block("page.md", 7, "sh", f"cd scan\n{line}\n")
    code, printed = run_page(list(commands(planted)), world, tmp_path / "page")
    assert (code, f"page.md:8: {said}" in printed) == ((99, True) if said else (0, False)), printed


def test_what_is_called_quickly_is_what_a_reader_calls(world: Path, tmp_path: Path) -> None:
    real = Path(sys.executable).with_name("syncect")
    same = (
        "cd scan\nexport SYNCECT_CONFIG=../node.toml PLANTED=1\n"
        f"syncect jobs show 10 --json >a\n{real} jobs show 10 --json >b\ncmp a b\n"
        f"syncect peers echo tps 2>a  # exit code 5\n{real} peers echo tps 2>b  # exit code 5\ncmp a b\n"
        f"echo a-long-password | syncect users add anna --role viewer --password-stdin\n{real} users ls | grep anna\n"
        "python -m http.server 4999 --bind 127.0.0.1 2>page.txt &\n"
        "until curl --silent --fail http://127.0.0.1:4999/; do :; done >page.txt\n"
        "SYNCECT_SCP__PORT=4999 syncect doctor --json >a  # exit code 2\ngrep 4999 a\n"
    )
    code, printed = run_page(list(commands(Block("page.md", 1, "sh", same))), world, tmp_path / "page")
    assert code == 0, printed


def test_a_command_is_as_many_lines_as_bash_needs() -> None:
    text = "# a remark\ncat >a <<'EOF'\n[node]\nEOF\nfor n in 1 2; do\n  echo $n\ndone\n"
    text += "echo a \\\n  b   # exit code 4, as told\n"
    found = list(commands(Block("p", 1, "sh", text)))
    assert [(command.where, command.exit_code) for command in found] == [("p:2", 0), ("p:5", 0), ("p:8", 4)]
