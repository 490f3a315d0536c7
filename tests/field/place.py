"""Where the field cases lie; a checkout without them skips these tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("SYNCECT_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data").parent / "field"

if not (ROOT / "expect.json").is_file():
    pytest.skip(f"no field cases at {ROOT}", allow_module_level=True)
