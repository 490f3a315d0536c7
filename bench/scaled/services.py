"""The services that the sections share; each starts when it is first asked for and ends with the run."""

import logging
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from sqlalchemy import NullPool, create_engine

from tests.conftest import PostgresCluster


class Services:
    """A folder, a PostgreSQL cluster that syncs its log, and an S3 server.

    seed: of everything that is random in this run.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.seed = seed
        self._folder, self._stack = folder, ExitStack()

    def folder(self, name: str) -> Path:
        """A new empty folder of a section."""
        path = self._folder / name
        path.mkdir()
        return path

    @cached_property
    def postgres(self) -> PostgresCluster:
        """The cluster; it can be stopped, killed and started again."""
        return self._stack.enter_context(PostgresCluster(syncs=True))

    def new_database(self, name: str) -> str:
        """SQLAlchemy's URL of a new empty database, `name` in lower case letters, digits and underscores."""
        engine = create_engine(self.postgres.url(), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        engine.dispose()
        return self.postgres.url(name)

    @cached_property
    def s3(self) -> str:
        """URL of the S3 server; it takes any key, has no bucket yet, and keeps its objects in this process's memory."""
        from moto.server import ThreadedMotoServer  # noqa: PLC0415  # loads half of AWS

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        self._stack.callback(server.stop)
        host, port = server.get_host_and_port()
        return f"http://{host}:{port}"

    def close(self) -> None:
        """End everything that was started, the last first."""
        self._stack.close()
