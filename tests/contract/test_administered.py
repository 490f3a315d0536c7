"""A PostgreSQL server as its administrator has set it up: other defaults, few rights, another encoding."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, create_engine, select, text

from storage import postgresql
from storage.database import Database
from storage.errors import StoreUnavailable, UnusableUrl
from storage.postgresql import own_connection
from storage.schema import ensure_schema
from storage.series import SeriesStore
from storage.tables import Association

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
ODD_DEFAULTS = (
    "DateStyle=SQL,DMY",
    "TimeZone=Asia/Kolkata",
    "client_encoding=SQL_ASCII",
    "extra_float_digits=0",
    "default_transaction_isolation=serializable",
)
only_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture(scope="module")
def server(postgres_url: str) -> Iterator[Engine]:
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    yield server
    server.dispose()


@only_postgresql
def test_no_default_of_an_administrator_changes_what_a_value_means(database: Database) -> None:
    options = "%20".join(f"-c%20{one}" for one in ODD_DEFAULTS)
    url = f"{database.url.render_as_string()}&options={options}"
    odd, reader = Database(url), Database(url, read_only=True)
    SeriesStore(odd).open_association("receiver", "CTSIM", "hörsaal", NOW)
    for one in (odd, reader):
        with one.read() as session:
            assert session.execute(select(Association.opened_at, Association.peer_host)).one() == (NOW, "hörsaal")
            assert session.scalar(text("SELECT 0.1::float8 + 0.2::float8")) == 0.1 + 0.2
            assert session.scalar(text("SELECT current_setting('TimeZone')")) == "UTC"
            session.rollback()
            assert session.scalar(text("SELECT current_setting('TimeZone')")) == "UTC"
    with odd.write() as session:
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"
    with own_connection(odd.engine) as listening:
        listening.execute("LISTEN syncect")
    odd.close()
    reader.close()


@only_postgresql
def test_a_role_without_rights_is_told_which_one_it_lacks(database: Database, server: Engine) -> None:
    poor = Database(database.url.render_as_string().replace("//test@", "//poor@"))
    with server.connect() as connection:
        connection.execute(text("CREATE ROLE poor LOGIN"))
        try:
            words = "cannot be used: the role may not do that: permission denied for table alembic_version$"
            with pytest.raises(StoreUnavailable, match=words):
                poor.current_revision()
            with pytest.raises(StoreUnavailable, match=r"permission denied for table association$"):
                SeriesStore(poor).open_association("receiver", "CTSIM", "h", NOW)
            empty = Database(str(server.url).replace("//test@", "//poor@"))
            with pytest.raises(StoreUnavailable, match=r"permission denied for schema public$"):
                ensure_schema(empty)
            empty.close()
        finally:
            poor.close()
            connection.execute(text("DROP ROLE poor"))


@only_postgresql
def test_a_transaction_that_an_administrator_lets_end_counts_as_an_outage(database: Database, server: Engine) -> None:
    hasty = Database(f"{database.url.render_as_string()}&options=-c%20idle_in_transaction_session_timeout=1")
    alive = text("SELECT count(*), pg_sleep(0.005) IS NULL FROM pg_stat_activity WHERE pid = :pid")

    def dally() -> None:
        with hasty.write() as session, server.connect() as other:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            while other.scalar(alive, {"pid": pid}):
                pass
            session.execute(text("SELECT 1"))

    # The server says why before it closes the connection, but the driver may see the end of the connection first.
    with pytest.raises(StoreUnavailable, match=r"idle-in-transaction timeout|closed the connection unexpectedly"):
        dally()
    hasty.close()


def test_no_schema_is_made_where_not_every_name_can_be_kept(server: Engine) -> None:
    with server.connect() as connection:
        connection.execute(
            text("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        )
        latin = Database(str(server.url).replace("/postgres?", "/latin?"))
        try:
            with pytest.raises(UnusableUrl, match=r"has the encoding LATIN1, .*: make it anew with .*'UTF8'"):
                ensure_schema(latin)
            assert latin.current_revision() is None
        finally:
            latin.close()
            connection.execute(text("DROP DATABASE latin"))


@pytest.mark.parametrize(
    ("seen", "is_lent"),
    [
        ("SELECT pg_backend_pid()", False),  # the server itself
        ("SELECT -pg_backend_pid()", False),  # a pooler in session mode tells clients other numbers
        ("SELECT -1", True),  # two connections meet one session
    ],
)
def test_a_pooler_in_transaction_mode_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, seen: str, is_lent: bool
) -> None:
    monkeypatch.setattr(postgresql, "_SERVER_PROCESS", seen)
    database = Database(postgres_url)
    with pytest.raises(UnusableUrl, match="a pooler in transaction mode") if is_lent else nullcontext():
        database.require_sessions()
    database.close()


def test_an_option_that_the_driver_does_not_know_is_named(postgres_url: str) -> None:
    wrong = Database(f"{postgres_url}&sslmod=require")
    with pytest.raises(StoreUnavailable, match=r'cannot be used: invalid connection option "sslmod"$'):
        wrong.current_revision()


@pytest.mark.parametrize("password", ["p@ss", "p@/s:s"])
def test_no_part_of_a_password_is_taken_for_a_host(password: str) -> None:
    with pytest.raises(UnusableUrl, match="write @ as %40") as told:
        Database(f"postgresql+psycopg://syncect:{password}@db.example/syncect")
    assert "ss@" not in str(told.value)
    assert Database("postgresql+psycopg://u%40site:p%40s@db/x?application_name=a@b").url.password == "p@s"
    assert Database("sqlite:////srv/a@b@c/s.sqlite3").location == "/srv/a@b@c/s.sqlite3"
