"""Where each page of the repository lies in the site, and its links turned so that they hold there."""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ("docs/reference/options.md", "docs/reference/settings.md")
"""Pages that exist in the site only, by the paths that links from below docs/ give them."""

_OUTSIDE = ("*.md", "bench/*.md", "bench/results/*.md", "deploy/*.md", "deploy/*/README.md")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *```")
_CODE = re.compile(r"(`+)(.+?)\1")


class BadLink(Exception):
    """A link that does not hold in the site; the message names page, line and target."""


def pages() -> dict[str, str]:
    """Each page of the site: its path in the repository, and its path in the site."""
    below = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    below = [path for path in below if not path.startswith("docs/builder/")]
    outside = sorted({path.relative_to(ROOT).as_posix() for glob in _OUTSIDE for path in ROOT.glob(glob)})
    return {path: place(path) for path in (*below, *outside, *GENERATED)}


def place(path: str) -> str:
    """Where a file of the repository lies in the site: docs/ is its root, and a README is the index of its folder."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    folder, name = posixpath.split(path)
    if not folder:
        return f"repository/{name.lower()}" if name != "README.md" else "repository/overview.md"
    return posixpath.join(folder, "index.md" if name == "README.md" else name)


def turned(path: str, text: str, known: Mapping[str, str]) -> tuple[str, set[str]]:
    """A page's text with links that hold in the site, and the pictures and reports that it links; raises BadLink.

    path: of the page in the repository. known: as `pages` gives them. Below docs/ a link to a file that is no page of
    the site is an error. In other pages, which are read in the repository too, the words stay and the link goes.
    """
    pictures: set[str] = set()

    def turn(words: str, target: str, line: int) -> str:
        file, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:") or not file:
            return f"[{words}]({target})"
        aim = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
        if aim in known:
            there = posixpath.relpath(known[aim], posixpath.dirname(known[path]) or ".")
            return f"[{words}]({there}{'#' if anchor else ''}{anchor})"
        if not (ROOT / aim).exists():
            raise BadLink(f"{path}:{line}: there is no {aim}")
        if aim.endswith((".png", ".svg", ".jpg", ".pdf", ".html")):
            pictures.add(aim)
            return f"[{words}]({posixpath.relpath(place(aim), posixpath.dirname(known[path]) or '.')})"
        if path.startswith("docs/"):
            raise BadLink(f"{path}:{line}: {aim} is no page of the site; write its name as code")
        return words

    return _each_link(text, turn), pictures


def _each_link(text: str, turn: Callable[[str, str, int], str]) -> str:
    """`turn` words, target and line of each link outside code."""
    lines = []
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if _FENCE.match(line):
            fenced = not fenced
        lines.append(line if fenced else _turned_line(line, number, turn))
    return "\n".join(lines) + "\n"


def _turned_line(line: str, number: int, turn: Callable[[str, str, int], str]) -> str:
    # Code in the words of a link stays in place; code that looks like a link must not become one.
    hidden = list(_hidden(line))
    for place_of, code in enumerate(hidden):
        line = line.replace(code, f"\x00{place_of}\x00", 1)
    line = _LINK.sub(lambda link: turn(link[1], link[2], number), line)
    return re.sub("\x00(\\d+)\x00", lambda found: hidden[int(found[1])], line)


def _hidden(line: str) -> Iterator[str]:
    return (code[0] for code in _CODE.finditer(line))
