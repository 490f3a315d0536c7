"""A run's folder belongs to one training at a time: two would mix their losses and replace each other's checkpoint."""

import fcntl
from pathlib import Path
from typing import IO, Final

from models.training.options import TrainingError

CLAIM_FILE: Final = "run.lock"


def claim(out: Path) -> IO[str]:
    """Take the folder until the file that this returns is closed, or the process has ended, whatever ended it.

    Where the file system knows no locks nothing is held. Raises TrainingError where another training has the folder.
    """
    file = (out / CLAIM_FILE).open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise TrainingError(
            f"another process trains in {out}; wait for its end or stop it, or name another folder."
        ) from error
    except OSError:  # some network file systems refuse every lock
        return file
    return file
