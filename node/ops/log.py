"""The log format of all processes: one line per event, UTC, UIDs and job ids only."""

import logging
import time


def configure_logging(role: str, *, verbose: bool = False) -> None:
    """Log to standard error as `2026-01-31T12:00:00Z INFO receiver  message`."""
    formatter = logging.Formatter(f"%(asctime)sZ %(levelname)s {role} %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # These libraries log identifiers and whole datasets, which may name patients, or a line per tick.
    for name in ("pynetdicom", "pydicom", "apscheduler", "matplotlib", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
