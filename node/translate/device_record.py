"""What an installation remembers of its device, in one small file: whether it had a GPU, and how fast it translates.

The first keeps a node from taking the processor in silence when its GPU is gone; the second gives a job its time limit.
"""

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from node.beats import FIRST_LIMIT_S_PER_SLICE, IDLE_LIMIT_S, LONG_LIMIT_S

log = logging.getLogger(__name__)


class DeviceRecord:
    """The file at `path`; None remembers as long as the process lives. A file that cannot be read counts as none."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        self._lock = threading.RLock()
        if path is not None:
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                self._known = found if isinstance(found, dict) else {}
            except (OSError, ValueError):
                pass

    @property
    def had_gpu(self) -> bool:
        """Whether this installation translated on a GPU, and nobody has decided for the processor since."""
        return self._known.get("device") == "cuda"

    def uses(self, device: str) -> None:
        """Remember the device that is used now, "cuda" or "cpu"."""
        if self._known.get("device") != device:
            self._known["device"] = device
            self._keep()

    def seconds_per_slice(self, translator: str) -> float | None:
        """What a slice took in earlier jobs of a translator, which is named with its device; None before the first."""
        known = self._known.get("seconds_per_slice")
        value = known.get(translator) if isinstance(known, dict) else None
        return float(value) if isinstance(value, int | float) and value > 0 else None

    def limit_s(self, translator: str, slices: int) -> float:
        """How long a job of so many slices may make no step: as long as all of it took, measured in earlier jobs."""
        known_s = self.seconds_per_slice(translator)
        if known_s is None:
            return max(LONG_LIMIT_S, slices * FIRST_LIMIT_S_PER_SLICE)
        return max(IDLE_LIMIT_S, slices * known_s)

    def measured(self, translator: str, seconds_per_slice: float) -> None:
        """Remember what a slice took in a job that ended well; a slower one counts at once, a faster one by half."""
        with self._lock:
            self._remember(translator, seconds_per_slice)

    def _remember(self, translator: str, seconds_per_slice: float) -> None:
        before = self.seconds_per_slice(translator) or seconds_per_slice
        known = self._known.get("seconds_per_slice")
        pace_s = round(max(seconds_per_slice, (before + seconds_per_slice) / 2), 4)
        self._known["seconds_per_slice"] = {**(known if isinstance(known, dict) else {}), translator: pace_s}
        self._keep()

    def _keep(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_text(json.dumps(self._known), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:  # a disk that is full now; the next job writes it
            log.warning(
                "%s could not be written: %s", self._path, error.strerror, extra={"event": "device_record_not_written"}
            )
