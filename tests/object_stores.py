"""Object stores for tests: one in memory with faults to order, and moto's S3 server as a process of its own."""

import re
import signal
import subprocess
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.spool import SpoolSettings
from storage.objects import Objects, open_objects
from tests.conftest import require_program

BUCKET = "department"


class FaultyStore:
    """obstore's store in memory; `before(verb, key)` may raise, `after(verb, key, answer)` changes what was read."""

    def __init__(self) -> None:
        from obstore.store import MemoryStore

        self.real = MemoryStore()
        self.before: Callable[[str, str], None] = lambda _verb, _key: None
        self.after: Callable[[str, str, bytes], bytes] = lambda _verb, _key, answer: answer
        self.asked: Counter[str] = Counter()
        self.open = Objects(lambda _limit_s: self)  # type: ignore[arg-type, return-value]

    def _ask(self, verb: str, key: str) -> None:
        self.asked[verb] += 1
        self.before(verb, key)

    def put(self, key: str, data: bytes, **options: Any) -> Any:
        self._ask("put", key)
        return self.real.put(key, data, **options)

    def get_range(self, key: str, **span: Any) -> bytes:
        self._ask("get", key)
        return self.after("get", key, bytes(self.real.get_range(key, **span)))

    def head(self, key: str) -> Any:
        self._ask("head", key)
        return self.real.head(key)

    def delete(self, key: str) -> None:
        self._ask("delete", key)
        self.real.delete(key)

    def list(self, folder: str, **options: Any) -> Any:
        self._ask("list", folder)
        return self.real.list(folder, **options)

    def list_with_delimiter(self, folder: str) -> Any:
        self._ask("list", folder)
        return self.real.list_with_delimiter(folder)

    def all_keys(self) -> set[str]:
        return {one["path"] for page in self.real.list() for one in page}

    def bytes_of(self, key: str) -> bytes:
        return bytes(self.real.get(key).bytes())


class MotoServer:
    """An S3 server with one empty bucket; whatever credentials are shown to it are good."""

    def __init__(self) -> None:
        program = require_program("moto_server", str(Path(__file__).parents[1] / ".venv" / "bin" / "moto_server"))
        self.process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        found = (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in self.process.stdout)
        self.port = int(next(one for one in found if one)[1])
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.make_bucket()

    def make_bucket(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")).close()

    def forget_all(self) -> None:
        """An empty server with the one bucket again, faster than another process."""
        reset = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset).close()
        self.make_bucket()

    def objects(self, prefix: str = "spool") -> Objects:
        settings = SpoolSettings(url=f"s3://{BUCKET}/{prefix}", endpoint=self.endpoint)
        return open_objects(settings, lambda: ("tester", "secret"))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Meanwhile it takes connections, as the system does for it, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
