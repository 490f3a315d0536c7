"""Promises of the table of methods: every row can be trained and translated with, and reading it costs no torch."""

import subprocess
import sys
from importlib import import_module

import pytest

from models.registry import METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_row_names_what_trains_and_what_translates(name: str) -> None:
    row = METHODS[name]
    assert {"paper", "tiny"} <= set(row.presets)
    assert callable(import_module(row.training).build)
    assert callable(import_module(row.translation).load)


def test_reading_the_table_loads_no_torch() -> None:
    program = "import sys, models.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
