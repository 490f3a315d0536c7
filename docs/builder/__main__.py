"""`make docs`: put the pages together in build/docs/pages, and make the site of them in build/docs/site."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from docs.builder.diagrams import drawn
from docs.builder.links import GENERATED, ROOT, pages, place, turned
from docs.builder.navigation import navigation
from docs.builder.options import options_page
from docs.builder.settings import settings_page
from docs.builder.states import filled

# A wide diagram or table scrolls within the page; a key, a command or an option is not broken in its middle.
_STYLE = """\
.diagram { background: white; padding: 0.5em; width: 100%; }
p:has(> a > .diagram) { overflow-x: auto; }
.md-typeset code { word-break: normal; overflow-wrap: break-word; }
.md-typeset td:first-child code { white-space: nowrap; }
"""
_SHIM = Path(__file__).with_name("vendor") / "iframe-worker-1.0.4.js"
_SHIM_IN_THE_NETWORK = "https://unpkg.com/iframe-worker/shim"
# What is written here would be looked for in the network by the builder's own defaults: fonts, and nothing else.
_THEME = {
    "language": "en",
    "font": False,
    "features": ["navigation.indexes", "navigation.sections", "navigation.path", "navigation.top", "content.code.copy"],
    # As the reader's system is, until the reader chooses. Without a toggle the script of each page fails.
    "palette": [
        {"media": "(prefers-color-scheme)", "toggle": {"icon": "lucide/sun-moon", "name": "Light"}},
        {
            "media": "(prefers-color-scheme: light)",
            "scheme": "default",
            "toggle": {"icon": "lucide/sun", "name": "Dark"},
        },
        {
            "media": "(prefers-color-scheme: dark)",
            "scheme": "slate",
            "toggle": {"icon": "lucide/moon", "name": "As the system"},
        },
    ],
}


def assemble(folder: Path) -> list[dict[str, Any]]:
    """Write every page and picture of the site into `folder`, a new one; returns the navigation. Raises BadLink."""
    known = pages()
    made = dict(zip(GENERATED, (options_page(), settings_page()), strict=True))
    for path, there in known.items():
        text = made.get(path) or (ROOT / path).read_text(encoding="utf-8")
        text, pictures = turned(path, filled(path, text), known)
        _write(folder / there, drawn(text, folder, there.count("/")))
        for picture in pictures:
            _copy(ROOT / picture, folder / place(picture))
    (folder / "site.css").write_text(_STYLE, encoding="utf-8")
    return navigation(folder, known)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def build(folder: Path) -> int:
    """Make the site in `folder`/site; returns the builder's exit code, which is not 0 where it had to warn."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pages").mkdir(parents=True)
    project = {
        "site_name": "syncect",
        "site_description": "A DICOM node that gives planning a synthetic contrast-enhanced CT",
        "docs_dir": "pages",
        "site_dir": "site",
        "use_directory_urls": False,
        "nav": assemble(folder / "pages"),
        "extra_css": ["site.css"],
        "theme": _THEME,
        "plugins": {"search": {}, "offline": {}},
    }
    # YAML has JSON in it; the builder reads YAML, and JSON needs no further package to be written.
    settings = folder / "mkdocs.yml"
    settings.write_text(json.dumps({**project, "markdown_extensions": _EXTENSIONS}), encoding="utf-8")
    program = Path(sys.executable).with_name("zensical")
    command = [str(program), "build", "--strict", "--clean", "--config-file", str(settings)]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        _take_from_the_disk(folder / "site")
    return code


def _take_from_the_disk(site: Path) -> None:
    """What the theme would load from the network when a page is read, for the search of a site without a server."""
    _copy(_SHIM, site / "assets" / "iframe-worker.js")
    for page in site.rglob("*.html"):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(_SHIM_IN_THE_NETWORK, f"{up}assets/iframe-worker.js"), encoding="utf-8")


_EXTENSIONS = [
    "tables",
    "attr_list",
    "md_in_html",
    {"toc": {"permalink": True}},
    "pymdownx.superfences",
    "pymdownx.highlight",
]


if __name__ == "__main__":
    sys.exit(build(ROOT / "build" / "docs"))
