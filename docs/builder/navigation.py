"""What the site has on its left side: a section for each reader, the pages of a section by themselves."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docs.builder.states import states

_SECTIONS = {
    "Operate": ("operate", "deploy"),
    "Plan": ("plan",),
    "Physics": ("physics",),
    "Train": ("train",),
    "Develop": ("develop", "bench", "repository"),
    "Reference": ("reference",),
}
_FIRST = {"Start here": "index.md", "Start in five minutes": "quickstart.md"}

Entry = dict[str, Any]


def navigation(folder: Path, placed: Mapping[str, str]) -> list[Entry]:
    """The sections with the pages of `folder`, by `placed`, the site's path of each; KeyError for one in no section."""
    paths = sorted(placed.values())
    entries: list[Entry] = [{title: path} for title, path in _FIRST.items() if path in paths]
    for title, tops in _SECTIONS.items():
        mine = [path for top in tops for path in paths if path.startswith(f"{top}/")]
        if mine:
            entries.append({title: _section(folder, mine, f"{tops[0]}/index.md")})
    lost = [
        path for path in paths if path not in _FIRST.values() and path.split("/")[0] not in sum(_SECTIONS.values(), ())
    ]
    if lost:
        raise KeyError(f"no section of the site has {lost}")
    return entries


def _section(folder: Path, paths: list[str], index: str) -> list[Any]:
    """`index` first, then by title; the pages of a folder beside a page of its name stand below that page's words."""
    inner = {path for path in paths if f"{path.rpartition('/')[0]}.md" in paths}
    own: list[Any] = sorted(
        (path for path in paths if path not in inner), key=lambda path: (path != index, title(folder / path))
    )
    entries: list[Any] = []
    for path in own:
        below = sorted((one for one in inner if f"{one.rpartition('/')[0]}.md" == path), key=_of_life)
        name = title(folder / path)
        if below:
            entries.append({name: [{name: path}, *({title(folder / one): one} for one in below)]})
        else:
            entries.append(path if path == index else {name: path})
    return entries


def _of_life(path: str) -> tuple[int, str]:
    """States stand in the order of a series' life, other pages by name."""
    state, known = Path(path).stem.upper(), states()
    return (known.index(state) if state in known else len(known), path)


def title(page: Path) -> str:
    """The first heading of a page, or its file name where a program wrote it without one."""
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else page.stem.replace("-", " ")
