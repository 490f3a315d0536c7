"""Mermaid diagrams become pictures when the site is built: a browser would have to load a program for them."""

import hashlib
import re
from pathlib import Path

import mmdr

_DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_WIDTH = re.compile(r'viewBox="\S+ \S+ (\S+) ')
_READABLE = 0.6  # of the size as drawn; where the page is narrower, it scrolls
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def drawn(text: str, folder: Path, depth: int) -> str:
    """A page whose diagrams are pictures in `folder`/diagrams; `depth` says how many folders the page lies below it.

    A click shows a diagram as large as it is. Raises what the drawer raises where a diagram has a mistake.
    """

    def draw(found: re.Match[str]) -> str:
        picture = mmdr.render(found[1]).svg()
        name = f"diagrams/{hashlib.sha256(found[1].encode()).hexdigest()[:12]}.svg"
        (folder / "diagrams").mkdir(exist_ok=True)
        (folder / name).write_text(picture, encoding="utf-8")
        heading = _HEADING.findall(text[: found.start()])[-1].replace("`", "")
        place, width_px = f"{'../' * depth}{name}", float(_WIDTH.findall(picture)[0])
        style = f"min-width: {_READABLE * width_px:.0f}px; max-width: {width_px:.0f}px"
        return f'[![Diagram: {heading}]({place}){{ .diagram style="{style}" }}]({place})'

    return _DIAGRAM.sub(draw, text)
