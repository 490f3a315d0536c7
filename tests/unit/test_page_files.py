"""The page's own files run in browsers of before 2020 and ask nothing of another host."""

import re
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "node" / "web"
OWN = [
    path for path in sorted(WEB.rglob("*")) if path.suffix in (".js", ".css", ".html") and "vendor" not in path.parts
]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_of_the_page_loads_nothing_from_outside(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+/", text)


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix == ".css"], ids=lambda path: path.name)
def test_a_style_sheet_uses_nothing_that_old_browsers_do_not_know(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r":has\(|@container|@layer|\binset:|aspect-ratio:|&[ .:]|:is\(|:where\(|clamp\(", text)


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix == ".js"], ids=lambda path: path.name)
def test_a_script_uses_nothing_that_old_browsers_do_not_know(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"\?\.\w|\?\?|^await |\.at\(|replaceAll|Object\.hasOwn|\beval\(|innerHTML = [^']", text, re.M)
