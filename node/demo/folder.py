"""The folder of a demo: what lies in it, that it is the demo's own, and that one demo uses it at a time."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.errors import Refused
from node.ops.processes import running_processes

MARK: Final = "README.txt"
_FIRST_LINE: Final = "This folder was made by `syncect demo`."
_TEXT: Final = f"""{_FIRST_LINE} The next demo in it replaces what lies here; remove it whenever you like.

syncect-demo.png   the picture: source, synthetic and difference
scanner/           the DICOM files of the phantom (with --series they stay where they are, and the node keeps a copy)
tps/               the DICOM files that the treatment planning system got
node.toml          the settings of the demo's node; commands take them by --config
node.log           what the node said
data/              the store and the files of the node

Nothing here may be used on patients. With --series this folder holds copies of your images.
"""
_FOLDERS: Final = ("scanner", "tps", "data")
_FILES: Final = ("syncect-demo.png", "node.toml", "node.log")


@dataclass(frozen=True)
class DemoFolder:
    """Where everything of one demo lies."""

    root: Path

    @property
    def scanner(self) -> Path:
        """The phantom's DICOM files."""
        return self.root / "scanner"

    @property
    def tps(self) -> Path:
        """What the TPS got."""
        return self.root / "tps"

    @property
    def settings(self) -> Path:
        """The settings file of the node."""
        return self.root / "node.toml"

    @property
    def log(self) -> Path:
        """What the node's processes said."""
        return self.root / "node.log"

    @property
    def picture(self) -> Path:
        """The picture at the end."""
        return self.root / "syncect-demo.png"


@contextmanager
def claimed(root: Path, *, keep: Path | None = None) -> Iterator[tuple[DemoFolder, bool]]:
    """The folder of a demo, emptied of what the last demo left, and whether there was one; ours while the block runs.

    keep: a folder of the reader's that must not lie in it. Raises Refused where the folder is in use or no demo's.
    """
    if root.exists() and not root.is_dir():
        raise Refused(f"{root} is a file; name another folder with --out")
    if keep is not None and keep.resolve().is_relative_to(root.resolve()):
        raise Refused(f"the folder of --series lies in {root}, which the demo empties first; name another with --out")
    mark = root / MARK
    is_used = mark.is_file() and mark.read_text(encoding="utf-8", errors="replace").startswith(_FIRST_LINE)
    if not is_used and root.is_dir() and any(root.iterdir()):
        raise Refused(f"{root} holds files that no demo made, and none of them is touched; name another with --out")
    root.mkdir(parents=True, exist_ok=True)
    with mark.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused(f"another demo runs in {root}; end it first, or name another folder with --out") from error
        if running := running_processes(root / "data" / "run"):
            raise Refused(f"a node works in {root} (pid {running[0].pid}); stop it first, or name another with --out")
        _empty(root)
        file.truncate(0)
        file.write(_TEXT)
        file.flush()
        yield DemoFolder(root), is_used


def _empty(root: Path) -> None:
    """Remove what demos make, by name; what else lies there is somebody's."""
    for name in _FOLDERS:
        if (path := root / name).is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
    for name in _FILES:
        (root / name).unlink(missing_ok=True)
