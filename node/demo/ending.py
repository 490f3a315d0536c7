"""The end of a demo: where things are, the commands to try on its node, and its page, as long as a person looks."""

import select
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from config.settings import Settings
from node.demo.folder import DemoFolder
from node.demo.following import SENT
from node.demo.node_process import USER, RunningNode
from node.demo.story import Story
from storage.cases import Case

_LOOK_S: Final = 1.0
_COMMANDS: Final = (
    ("jobs ls", "every series, its state and the reason"),
    ("jobs show {id}", "all that is known about this one"),
    ("jobs why {id}", "why it is in this state, and what to do next"),
    ("jobs events {id}", "its history, from the first slice on"),
)
_OF_SENT: Final = (("replay {id}", "compute it again and compare: the same bytes, or what differs"),)
_OF_OTHERS: Final = (("series rules", "all rules by which the node accepts, holds or skips a series"),)
_WHILE_UP: Final = (("status", "how the node is"),)
_OF_HELD_WHILE_UP: Final = (('jobs release {id} --reason "why"', "send it, after you have looked at every slice"),)
_WHILE_DOWN: Final = (("serve", "start the node again, with its page; Ctrl-C ends it"),)


def say_what_to_try(
    case: Case, folder: DemoFolder, settings: Settings, password: str, story: Story, *, stay: bool
) -> None:
    """Say where the files are, which commands work on this node, and how its page is opened."""
    story.step("What you can look at now:")
    if case.state in SENT:
        story.note(f"DICOM files that the TPS got: {folder.tps}")
    if folder.scanner.is_dir():
        story.note(f"DICOM files of the scan:      {folder.scanner}")
    story.note(f"log of the node:              {folder.log}")
    story.step("Commands to try on the node of the demo:")
    rows = [(_typed(folder, words.format(id=case.id)), why) for words, why in _words(case, stay)]
    width = max(len(command) for command, _ in rows)
    for command, why in rows:
        story.note(f"{command:<{width}}  # {why}")
    if case.state == "HELD" and case.product_dir is not None:
        story.note('To send it all the same, look at every slice and start this demo again with --release "why".')
    address = settings.web.address
    if stay:
        story.step(f"The page of the node is open until you end the demo: {address}")
    else:
        story.step(f"The page of the node: start it with `serve` as above, then open {address}")
    story.note(f"log in as {USER}, password {password} (made for this demo, and shown only here)")
    story.note(f"the images of this series: {address}/cases/{case.id}/review")


def stay(process: RunningNode, story: Story) -> None:
    """Wait until Enter or Ctrl-C is pressed, or a signal comes. Raises DemoFailed where the node ends."""
    keys = [sys.stdin] if sys.stdin.isatty() else []  # what is no terminal would be at its end at once
    story.plain(f"Node, page and TPS run until you press {'Enter or ' if keys else ''}Ctrl-C.")
    try:
        while not select.select(keys, [], [], _LOOK_S)[0]:
            process.require_alive()
        sys.stdin.readline()
    except KeyboardInterrupt:
        story.plain()
    story.plain("The demo ends. Its files stay where they are.")


def _words(case: Case, stay: bool) -> list[tuple[str, str]]:
    rows = [*_COMMANDS, *(_OF_SENT if case.state in SENT else _OF_OTHERS)]
    if not stay:
        return [*rows, *_WHILE_DOWN]
    can_release = case.state == "HELD" and case.product_dir is not None
    return [*rows, *_WHILE_UP, *(_OF_HELD_WHILE_UP if can_release else ())]


def _typed(folder: DemoFolder, words: str) -> str:
    """A command as a person types it in the folder where the demo was started."""
    return f"{_program()} --config {shlex.quote(_short(folder.settings))} {words}"


def _program() -> str:
    typed = Path(sys.argv[0])
    if typed.name != "syncect":
        return f"{shlex.quote(sys.executable)} -m node.cli"
    known = shutil.which("syncect")
    if known and typed.exists() and typed.samefile(known):
        return "syncect"
    return shlex.quote(_short(typed.absolute()))


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
