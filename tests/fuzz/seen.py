"""Which lines of the product an input reached, so that inputs that reach new ones are kept and changed further."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]
_PRODUCT: Final = tuple(f"{_ROOT / folder}/" for folder in ("config", "models", "node", "storage"))
_OURS: Final = (*_PRODUCT, f"{_ROOT / 'tests'}/")
_Trace = Callable[[FrameType, str, Any], Any]


def place_of(frame: FrameType) -> str:
    """File and function of a frame, below the folder of the project; "" outside it."""
    file = frame.f_code.co_filename
    return f"{Path(file).relative_to(_ROOT)}:{frame.f_code.co_name}" if file.startswith(_OURS) else ""


class Seen:
    """Lines of the product's code that ran in a block, in every thread that began in it.

    Once all lines of a function were seen it is not looked at any more, and runs as fast as ever.
    """

    def __init__(self) -> None:
        self.lines: set[tuple[CodeType, int]] = set()
        self._left: dict[CodeType, set[int]] = {}
        self._foreign: set[CodeType] = set()

    def start(self) -> None:
        """Look at this thread and those that begin from now on."""
        threading.settrace(self._call)
        sys.settrace(self._call)

    def stop(self) -> None:
        """Look no more."""
        sys.settrace(None)
        threading.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> _Trace | None:
        code = frame.f_code
        if code in self._foreign:
            return None
        left = self._left.get(code)
        if left is None:
            if not code.co_filename.startswith(_PRODUCT):
                self._foreign.add(code)
                return None
            left = self._left[code] = {line for _, _, line in code.co_lines() if line is not None}
        return self._line if left else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> _Trace:
        if event == "line":
            key = frame.f_code, frame.f_lineno
            if key not in self.lines:
                self.lines.add(key)
                self._left[frame.f_code].discard(frame.f_lineno)
        return self._line
