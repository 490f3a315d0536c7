"""Faults of what the node keeps: files of the spool, and the database; and what an operator does about them.

The cure of a lost database is the one of `docs/operate/faults.md`: `db rebuild`, then a person decides about results.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from tests.torture import tps as peer
from tests.torture.bed import Bed, Fault
from tests.torture.scans import Scanner

_AT_ONCE_S = 2.5  # within which C-STORE is answered while there is no database
_LONG_S = 60.0
_OUT_OF_RESOURCES = 0xA700
_REASON = "--reason=the store was rebuilt"

# -- files -----------------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    """Damage the pixels at the end of a file."""
    data = path.read_bytes()
    path.write_bytes(data[:-64] + bytes(64))


def source_file(spoil: Callable[[Path], object]) -> Fault:
    """A received file of a series is spoilt, and the scanner sends the series again."""

    def fault(bed: Bed) -> Iterator[None]:
        scanner = bed.newest
        scanner.join(30.0)
        files = [path for path in (bed.spool / "received").glob("[!.]*/*.dcm")]
        spoil(max(files, key=lambda path: path.stat().st_mtime_ns))
        yield
        bed.push(scanner.scan)

    return fault


def product_file(spoil: Callable[[Path], object]) -> Fault:
    """A file of a result is spoilt before it is sent; nobody does anything about it."""

    def fault(bed: Bed) -> Iterator[None]:
        bed.settle(_LONG_S)
        bed.tps.answer = peer.refuse
        scanner = bed.push()
        bed.require(bed.await_(lambda: bool(_results(bed, scanner)), _LONG_S), "no result was made")
        spoil(bed.rng.choice(_results(bed, scanner)))
        yield
        bed.tps.answer = peer.accept

    return fault


def _results(bed: Bed, scanner: Scanner) -> list[Path]:
    """The files of the result of what a scanner sent, once it is made."""
    for case in bed.cases():
        if case.series_uid == scanner.scan.series_uid and case.state in ("PRODUCED", "SENDING") and case.product_dir:
            return sorted((bed.spool / case.product_dir).glob("*.dcm"))
    return []


# -- the database ----------------------------------------------------------------------------------------------


def locked(bed: Bed) -> Iterator[None]:
    """Another program holds a lock on the whole store."""
    engine = create_engine(bed.node.url)
    with engine.connect() as connection:
        if bed.cluster is None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("LOCK TABLE series, instance, job IN ACCESS EXCLUSIVE MODE"))
        yield
        connection.rollback()
    engine.dispose()


def restarted(bed: Bed) -> Iterator[None]:
    """The server of the database ends at once, and comes back."""
    assert bed.cluster is not None
    bed.cluster.stop()
    yield
    bed.cluster.start()


def killed(bed: Bed) -> Iterator[None]:
    """SIGKILL to the server of the database while instances come, and it comes back."""
    assert bed.cluster is not None
    bed.cluster.kill()
    yield
    bed.cluster.start()


def moved_away(bed: Bed) -> Iterator[None]:
    """The database is gone for a while; nobody may connect to it where a server has it."""
    files = [(path, path.with_name(f"away-{path.name}")) for path in _sqlite_files(bed)]
    for path, away in files:
        path.rename(away)
    if bed.cluster is not None:
        _on_server(bed, 'ALTER DATABASE "{}" WITH ALLOW_CONNECTIONS false', _END_SESSIONS)
    refused = _expect_refusals(bed)
    yield
    refused()
    for path, away in files:
        away.rename(path)
    if bed.cluster is not None:
        _on_server(bed, 'ALTER DATABASE "{}" WITH ALLOW_CONNECTIONS true')


def deleted(bed: Bed) -> Iterator[None]:
    """The database is gone for good."""
    _everything_is_sent(bed)
    for path in _sqlite_files(bed):
        path.unlink()
    if bed.cluster is not None:
        _on_server(bed, 'DROP DATABASE "{}" WITH (FORCE)')
    refused = _expect_refusals(bed)
    yield
    refused()
    _does_not_begin_empty(bed)
    _rebuild(bed)


def replaced(bed: Bed) -> Iterator[None]:
    """Somebody puts an older copy of the database into its place while the node runs."""
    copy = _copy_of(bed)
    _everything_is_sent(bed)
    refused: Callable[[], None] = lambda: None  # noqa: E731
    if bed.cluster is None:
        Path(copy).replace(_sqlite_files(bed)[0])
        refused = _expect_refusals(bed)
    else:
        _on_server(bed, 'DROP DATABASE "{}" WITH (FORCE)', f'CREATE DATABASE "{{}}" TEMPLATE "{copy}"')
    yield
    refused()
    _rebuild(bed)


def corrupted(bed: Bed) -> Iterator[None]:
    """Other bytes stand in the file of the database."""
    _everything_is_sent(bed)
    path = _sqlite_files(bed)[0]
    path.write_bytes(bed.rng.randbytes(path.stat().st_size))
    refused = _expect_refusals(bed)
    yield
    refused()
    _rebuild(bed)


def _sqlite_files(bed: Bed) -> list[Path]:
    """The database first, and the files beside it; nothing where a server has it."""
    return sorted(bed.node.data_dir.glob("syncect.sqlite3*")) if bed.cluster is None else []


_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


def _on_server(bed: Bed, *statements: str) -> None:
    assert bed.cluster is not None
    engine = create_engine(bed.cluster.url(), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement.format(make_url(bed.node.url).database)))
    engine.dispose()


def _copy_of(bed: Bed) -> str:
    """A backup of the store of this moment: the path of a file, or the name of a database."""
    if bed.cluster is None:
        target = bed.folder / "copy.sqlite3"
        target.unlink(missing_ok=True)
        bed.command("db", "backup", str(target))
        return str(target)
    copy = f"{make_url(bed.node.url).database}_copy"
    bed.stop()
    _on_server(bed, f'DROP DATABASE IF EXISTS "{copy}"', f'CREATE DATABASE "{copy}" TEMPLATE "{{}}"')
    bed.start()
    return copy


def _everything_is_sent(bed: Bed) -> None:
    """No result is at the TPS in part, and a series is there whose result is not.

    A person who releases a result of which the TPS has a part would give other bytes to UIDs that it knows.
    """
    bed.push()
    bed.settle(_LONG_S)
    bed.tps.answer = peer.refuse
    bed.push().wait_for(bed.rng.randrange(1, 9), 20.0)


def _expect_refusals(bed: Bed) -> Callable[[], None]:
    """A scanner sends from now on; what is returned looks at the answers that it got so far."""
    scanner = bed.push()

    def look() -> None:
        bed.await_(lambda: bool(scanner.answers), 10.0)
        answers = list(scanner.answers)
        bed.require(bool(answers), "C-STORE was not answered without a database")
        for seconds, status in answers:
            bed.require(status == _OUT_OF_RESOURCES, f"C-STORE was answered with {status:04X} without a database")
            bed.require(seconds < _AT_ONCE_S, f"C-STORE was answered after {seconds:.1f} s without a database")

    return look


def _does_not_begin_empty(bed: Bed) -> None:
    """`serve` must not begin with an empty store beside a full spool, and must name the way out."""
    bed.stop()
    if bed.cluster is not None:
        _on_server(bed, 'CREATE DATABASE "{}"')
    serve = bed.node.spawn("serve")

    def refused() -> bool:
        answer = bed.node.run("status")
        return answer.returncode == 2 and "db rebuild" in answer.stdout + answer.stderr

    bed.require(bed.await_(refused, _LONG_S), "a restart without the database was not refused, or without the way out")
    serve.terminate()
    serve.wait(_LONG_S)


def _rebuild(bed: Bed) -> None:
    """What an operator does: `db rebuild`, and then a decision about each result."""
    bed.stop()
    if bed.cluster is not None:
        _on_server(bed, 'DROP DATABASE IF EXISTS "{}" WITH (FORCE)', 'CREATE DATABASE "{}"')
    bed.command("db", "rebuild", "--yes")
    bed.tps.answer = peer.accept
    bed.start()
    bed.require(bed.await_(lambda: _decide(bed), 2 * _LONG_S), f"after a rebuild: {bed.unsettled()[:3]}")


def _decide(bed: Bed) -> bool:
    """Reject what the TPS has, release what it has not, complete what is all there; whether nothing is left."""
    acknowledged, taken = bed.ledger.copies()
    at_tps = {acknowledged[each.source_uid][0] for each in taken}
    cases = [(case.id, case.state, case.series_uid) for case in bed.cases() if case.series_uid in bed.ledger.ends]
    held = [(number, uid) for number, state, uid in cases if state == "HELD"]
    if there := [number for number, uid in held if uid in at_tps]:
        for uid in at_tps:
            bed.ledger.allow(uid, "REJECTED")
        bed.command("jobs", "reject", *there, "--yes", _REASON)
    if missing := [number for number, uid in held if uid not in at_tps]:
        bed.command("jobs", "release", *missing, _REASON)
    whole = [number for number, state, uid in cases if state == "INCOMPLETE" and bed.has_sent(uid)]
    if whole:
        bed.command("jobs", "complete", *whole, _REASON)
    return not bed.unsettled()
