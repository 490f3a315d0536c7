"""What a disk holds after a power cut, worked out from the records of a shim, and how a node does on it.

The strict reading of POSIX: what a file holds is safe once that file was synced, what a directory holds once that
directory was synced, and nothing else is. `Disk.lay_out` also gives the disks on which some of the rest was written
before the cut, in any order, as a journal, a cache or a controller may do it.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from storage.database import Database
from storage.errors import StoreUnavailable
from tests.torture.calls import CHAIN, Outcome, Paths
from tests.torture.ledger import Ledger, Verdict, forgotten, lost_instances
from tests.torture.shim import Kind, Record

_NOT_KEPT = "-shm"  # of SQLite: shared memory that it makes anew


@dataclass
class _File:
    """Content as the processes see it, what is safe of it, and the writes since."""

    now: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)  # offset and data; a length and None


@dataclass
class _Folder:
    """Entries as the processes see them, those that are safe, and the changes since."""

    now: dict[str, "_Node"] = field(default_factory=dict)
    safe: dict[str, "_Node"] = field(default_factory=dict)
    since: list["_Change"] = field(default_factory=list)


_Node = _File | _Folder


@dataclass(frozen=True)
class _Change:
    """An entry that is made, or that goes; a rename is both, and both happen or none."""

    made: tuple[tuple[_Folder, str, _Node], ...] = ()
    gone: tuple[tuple[_Folder, str], ...] = ()


class Disk:
    """The disk below one root; `lies` are kinds of syncs that it answers and does not do."""

    def __init__(self, root: Path, *, lies: frozenset[Kind] = frozenset()) -> None:
        self._root, self._lies = str(root.resolve()), lies
        self._top = _Folder()
        self._by_inode: dict[int, _Node] = {root.resolve().stat().st_ino: self._top}

    def play(self, record: Record) -> None:
        """Do what one record says."""
        node = self._by_inode.get(record.inode)
        match record.kind:
            case Kind.CREATE | Kind.MKDIR:
                made: _Node = _File() if record.kind is Kind.CREATE else _Folder()
                self._by_inode[record.inode] = made
                folder, name = self._entry(record.path)
                self._change(_Change(made=((folder, name, made),)))
            case Kind.LINK if node is not None:
                folder, name = self._entry(record.path)
                self._change(_Change(made=((folder, name, node),)))
            case Kind.UNLINK | Kind.RMDIR:
                self._change(_Change(gone=(self._entry(record.path),)))
            case Kind.RENAME:
                source, target = self._entry(record.path), self._entry(record.target)
                moved = source[0].now[source[1]]
                self._change(_Change(made=((*target, moved),), gone=(source,)))
            case Kind.WRITE | Kind.TRUNCATE if isinstance(node, _File):
                data = record.data if record.kind is Kind.WRITE else None
                _apply(node.now, record.offset, data)
                node.since.append((record.offset, data))
            case Kind.SYNC if isinstance(node, _File) and Kind.SYNC not in self._lies:
                node.safe, node.since = bytes(node.now), []
            case Kind.SYNC_DIRECTORY if isinstance(node, _Folder) and Kind.SYNC_DIRECTORY not in self._lies:
                node.safe, node.since = dict(node.now), []

    def settle(self) -> None:
        """Take everything for safe: what a node finds that was installed long ago."""
        for node in self._by_inode.values():
            if isinstance(node, _File):
                node.safe, node.since = bytes(node.now), []
            else:
                node.safe, node.since = dict(node.now), []

    def lay_out(self, target: Path, rng: Random | None = None) -> None:
        """Write the disk after a cut at this moment: only what is safe, or with a part of the rest."""
        entries = {id(folder): dict(folder.safe) for folder in self._folders()}
        if rng is not None:
            for change in self._pending():
                if rng.random() < 0.5:
                    _enter(entries, change)
        _write(self._top, target, entries, rng)

    def now(self) -> dict[str, bytes]:
        """Every file as the processes see it, by its path below the root."""
        return dict(_walk(self._top, ""))

    def _folders(self) -> Iterator[_Folder]:
        seen: set[int] = set()
        for node in [self._top, *self._by_inode.values(), *_everything(self._top, seen)]:
            if isinstance(node, _Folder):
                yield node

    def _pending(self) -> list[_Change]:
        found: dict[int, _Change] = {}
        for folder in self._folders():
            for change in folder.since:
                found[id(change)] = change
        return list(found.values())

    def _entry(self, path: str) -> tuple[_Folder, str]:
        parts = path[len(self._root) :].strip("/").split("/")
        folder: _Node = self._top
        for part in parts[:-1]:
            assert isinstance(folder, _Folder)
            folder = folder.now[part]
        assert isinstance(folder, _Folder)
        return folder, parts[-1]

    def _change(self, change: _Change) -> None:
        for folder, name in change.gone:
            folder.now.pop(name, None)
        for folder, name, node in change.made:
            folder.now[name] = node
        touched = [folder for folder, _ in change.gone] + [folder for folder, _, _ in change.made]
        for folder in {id(folder): folder for folder in touched}.values():
            folder.since.append(change)


def _enter(entries: dict[int, dict[str, _Node]], change: _Change) -> None:
    for folder, name in change.gone:
        entries.setdefault(id(folder), {}).pop(name, None)
    for folder, name, node in change.made:
        entries.setdefault(id(folder), {})[name] = node


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _write(folder: _Folder, target: Path, entries: dict[int, dict[str, _Node]], rng: Random | None) -> None:
    target.mkdir(parents=True)
    for name, node in entries.get(id(folder), {}).items():
        if isinstance(node, _Folder):
            _write(node, target / name, entries, rng)
        elif not name.endswith(_NOT_KEPT):
            content = bytearray(node.safe)
            for offset, data in node.since:
                if rng is not None and rng.random() < 0.5:
                    _apply(content, offset, data)
            (target / name).write_bytes(content)


def _walk(folder: _Folder, path: str) -> Iterator[tuple[str, bytes]]:
    for name, node in folder.now.items():
        if isinstance(node, _Folder):
            yield from _walk(node, f"{path}{name}/")
        elif not name.endswith(_NOT_KEPT):
            yield f"{path}{name}", bytes(node.now)


def _everything(folder: _Folder, seen: set[int]) -> Iterator[_Node]:
    for node in (*folder.now.values(), *folder.safe.values()):
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            if isinstance(node, _Folder):
                yield from _everything(node, seen)


def cut_points(records: Sequence[Record]) -> list[int]:
    """Where to cut: before and after each sync, and after each mark; a number of records that were done."""
    points = {len(records)}
    for number, record in enumerate(records):
        if record.kind in (Kind.SYNC, Kind.SYNC_DIRECTORY, Kind.MARK):
            points |= {number, number + 1}
    return sorted(points)


def present_files(root: Path) -> dict[str, bytes]:
    """Every file below a folder as it is, to prove that the records tell the whole story."""
    return {
        os.path.relpath(path, root): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(_NOT_KEPT)
    }


def cuts(paths: Paths, points: Sequence[int], session: "Session", *, recover_every: int = 0) -> Iterator[Outcome]:
    """Take the power away at these points of a recorded session, and judge each disk.

    Each point is judged on the strict disk, and on one that holds a random part of what was not synced. Every
    `recover_every`-th disk is given to a node, which must then bring the series to its end.
    """
    wanted, done = set(points), 0
    disk = session.begin()
    for number, record in enumerate(session.records, 1):
        disk.play(record)
        session.note(record)
        if number not in wanted:
            continue
        for seed in (None, number):
            done += 1
            target = paths.folder / "cuts" / str(done)
            disk.lay_out(target / "data", None if seed is None else Random(seed))
            verdict = session.judge(target / "data")
            if recover_every and done % recover_every == 0 and verdict.is_clean:
                verdict = session.recover(paths, target)
            yield Outcome("power cut", number, verdict, "strict" if seed is None else "with a part of the rest")
            shutil.rmtree(target)


class Session:
    """A whole series from its arrival to the TPS, recorded once; the ledger grows as the records are played."""

    def __init__(self, paths: Paths, *, is_first_start: bool, lies: frozenset[Kind] = frozenset()) -> None:
        self._paths, self._lies = paths, lies
        paths.data_dir.mkdir(parents=True, exist_ok=True)
        self._root = paths.data_dir
        self._fresh = Disk(self._root, lies=lies)
        answer = paths.run(*CHAIN)
        assert answer.code == 0, answer.said
        everything = paths.shim.records()
        whole = Disk(self._root)
        for record in everything:
            whole.play(record)
        assert whole.now() == present_files(self._root), "the shim missed a call"
        installed = 0 if is_first_start else _number_of_mark(everything, "done create")
        self._before, self.records = everything[:installed], everything[installed:]
        self._sent = {each.uid: each.data for each in paths.scan.slices}
        self._taken = {each.uid: each for each in paths.ledger.taken}
        self.ledger = Ledger()

    def begin(self) -> Disk:
        """The disk as the session finds it."""
        for record in self._before:
            self._fresh.play(record)
        if self._before:
            self._fresh.settle()
        self.ledger = Ledger()
        return self._fresh

    def note(self, record: Record) -> None:
        """Keep what was promised by now."""
        if record.kind is not Kind.MARK:
            return
        word, _, uid = record.data.decode().partition(" ")
        if word == "acknowledged":
            self.ledger.acknowledge(self._paths.scan.series_uid, uid, self._sent[uid])
        elif word == "taken":
            self.ledger.taken.append(self._taken[uid])

    def judge(self, data_dir: Path) -> Verdict:
        """What was promised and is not on this disk."""
        verdict = Verdict(acknowledged=len(self.ledger.acknowledged))
        database = Database(f"sqlite:///{data_dir / 'syncect.sqlite3'}")
        try:
            if database.current_revision() is None:
                verdict.lost = [f"instance ..{uid[-8:]} has no store" for uid in self.ledger.acknowledged]
                return verdict
            verdict.lost = lost_instances(self.ledger, database, data_dir / "spool") if self.ledger.acknowledged else []
            verdict.twice = list(forgotten(self.ledger, database, data_dir / "spool")) if self.ledger.taken else []
        except StoreUnavailable as error:
            verdict.lost = [str(error)]
        finally:
            database.close()
        return verdict

    def recover(self, paths: Paths, target: Path) -> Verdict:
        """Give the disk to a node and the scanner's series to the node once more."""
        config = target / "node.toml"
        paths.write_settings(config, target / "data")
        paths.adopt(self.ledger)
        for operation in CHAIN:
            answer = paths.run(operation, config=config)
            if answer.code:
                return Verdict(stuck=list(answer.said))
        return paths.judge_at(f"sqlite:///{target / 'data' / 'syncect.sqlite3'}", target / "data" / "spool")


def _number_of_mark(records: Sequence[Record], text: str) -> int:
    return next(n for n, record in enumerate(records, 1) if record.kind is Kind.MARK and record.data == text.encode())
