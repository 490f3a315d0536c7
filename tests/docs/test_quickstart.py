"""The quickstart is followed literally: at its end Orthanc has the synthetic series."""

from pathlib import Path

from tests.conftest import require_program
from tests.docs.pages import blocks
from tests.docs.shell import commands, run_page

PAGE = "docs/quickstart.md"


def test_who_follows_the_quickstart_gets_a_node_that_talks_to_orthanc(world: Path, tmp_path: Path) -> None:
    for program in ("/usr/sbin/Orthanc", "/usr/bin/storescu", "/usr/bin/echoscu"):
        require_program(program)
    found = [command for block in blocks(PAGE) if block.language == "sh" for command in commands(block)]
    code, said = run_page(found, world, tmp_path / "page")
    assert code == 0, said[-6000:]
    assert '"SeriesDescription" : "sCE-CT AI' in said
