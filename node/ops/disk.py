"""Why nothing can be written to a folder now, found out without writing to it."""

import os
from pathlib import Path


def why_unwritable(folder: Path) -> str:
    """A sentence about the file system under `folder`, which need not exist yet; "" where it takes new files."""
    for place in (folder, *folder.parents):
        try:
            found = os.statvfs(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{place} cannot be used: {error.strerror}"
        if found.f_flag & os.ST_RDONLY:
            return f"the file system of {folder} is read-only"
        if found.f_files and not found.f_favail:  # some file systems make inodes as they need them, and say 0
            return f"the file system of {folder} has no inodes left: no new file can be made"
        if not place.is_dir():
            return f"{place} is a file and no folder"
        return ""
    return ""
