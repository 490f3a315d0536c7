"""An archive of small series from an S3 server through kills of its driver and actors: nothing lost, nothing twice."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bench.gpu.report import Section
from bench.scaled.figures import figure
from bench.scaled.services import Services
from config.spool import SpoolSettings
from models.testing import write_tiny_bundle
from node.archive.outcome import digest_of
from storage.objects import Objects, open_objects
from tests.builders import body_hu, make_series

SEED: Final = 18
SLICES: Final = 8
_KEYS: Final = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "secret"}
_BUCKET: Final = "archive"
_GAP_S: Final = (2.0, 6.0)  # between kills, drawn
_TRIES: Final = 20  # starts of the driver


def archive(section: Section, services: Services, *, short: bool) -> None:
    """A run of the command with kills, started again with the same words until it ends; then everything is counted."""
    series = 6 if short else 200
    plan = ["actor", "driver"] if short else ["actor", "actor", "driver", "actor", "driver", "actor", "actor"]
    folder, endpoint = services.folder("archive"), services.s3
    request = urllib.request.Request(f"{endpoint}/{_BUCKET}", method="PUT")  # noqa: S310 # a server of our own
    urllib.request.urlopen(request).close()  # noqa: S310
    sources = _put_sources(folder, endpoint, series)
    killed, seconds = _run(_command(folder, endpoint, sources), plan)
    section.row(series=series, slices=SLICES, seed=SEED, kills=dict(killed), seconds=round(seconds, 1))
    out = _objects(endpoint, "out")
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(_read(out, "outcomes.parquet"))).to_pylist()
    counted, ends = Counter(row["source"] for row in rows), Counter(row["end"] for row in rows)
    section.row(ends=dict(ends))
    named = f"archive of {series} series through kills"
    figure(section, f"{named}: series lost", sum(1 for one in sources if not counted[one]))
    figure(section, f"{named}: series twice", sum(count - 1 for count in counted.values()))
    figure(section, f"{named}: results that differ from their row", _wrong(out, rows))
    figure(section, f"{named}: series not PRODUCED", series - ends["PRODUCED"])
    figure(section, f"{named}: kills of the driver", killed["driver"])
    figure(section, f"{named}: kills of actors", killed["actor"])
    figure(section, f"{named}: series per hour", 3600 * series / seconds)


def _put_sources(folder: Path, endpoint: str, series: int) -> list[str]:
    for number in range(series):
        here, there = folder / "source" / str(number), _objects(endpoint, f"source/{number}")
        hu = body_hu(SLICES, 64, 64)
        for path in make_series(here, hu=hu, rows=64, columns=64, slices=SLICES, seed=f"archive {number}"):
            there.put(path.name, path.read_bytes())
    return [f"s3://{_BUCKET}/source/{number}" for number in range(series)]


def _command(folder: Path, endpoint: str, sources: list[str]) -> list[str]:
    write_tiny_bundle(folder / "tiny")
    pq.write_table(pa.table({"source": sources}), folder / "index.parquet")
    (folder / "node.toml").write_text(
        f'[node]\ndata_dir = "{folder / "data"}"\n[spool]\nendpoint = "{endpoint}"\n[ray]\nactors = 2\n'
        f'[model]\nbundle = "{folder / "tiny"}"\nallow_unproven = ["tiny"]\ndevice = "cpu"\n'
    )
    words = ["archive", "run", str(folder / "index.parquet"), "--out", f"s3://{_BUCKET}/out", "--json"]
    return [sys.executable, "-m", "node.cli", "--config", str(folder / "node.toml"), *words]


def _run(command: list[str], plan: list[str]) -> tuple[Counter[str], float]:
    """Start the command until it ends by itself, and kill what the plan says at moments that are drawn."""
    drawn, left, killed = random.Random(SEED), list(plan), Counter[str]()
    begun_s = time.monotonic()
    for _ in range(_TRIES):
        with subprocess.Popen(command, env=os.environ | _KEYS, stdout=subprocess.PIPE, text=True) as driver:
            due_s = 0.0
            while driver.poll() is None:
                time.sleep(0.1)
                actors = _actors_of(driver.pid) if left else []
                if not actors:
                    continue
                due_s = due_s or time.monotonic() + drawn.uniform(*_GAP_S)
                if time.monotonic() > due_s:
                    victim, due_s = left.pop(0), 0.0
                    os.kill(driver.pid if victim == "driver" else drawn.choice(actors), signal.SIGKILL)
                    killed[victim] += 1
            said = driver.stdout.read() if driver.stdout else ""
        if driver.returncode != -signal.SIGKILL:
            if driver.returncode:
                raise RuntimeError(f"the command ended with {driver.returncode}: {said}")
            return killed, time.monotonic() - begun_s
    raise RuntimeError("the archive did not come to its end")


def _actors_of(driver: int) -> list[int]:
    """The processes below a driver that translate."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            names[int(path.name)] = (path / "cmdline").read_text(errors="replace")
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):  # it has just ended
            continue

    def is_below(pid: int) -> bool:
        while pid in parents and pid != driver:
            pid = parents[pid]
        return pid == driver

    return [pid for pid, name in names.items() if name.startswith("ray::MapWorker") and is_below(pid)]


def _wrong(out: Objects, rows: list[dict[str, Any]]) -> int:
    """Results whose files are not those of their row, each once, and folders that no row names."""
    folders = {row["place"] for row in rows if row["place"]}
    found: dict[str, list[str]] = {}
    for top in ("series", "held"):
        for one in out.list(top):
            found.setdefault(one.key.rpartition("/")[0], []).append(one.key)
    stray, wrong = len(found.keys() - folders), 0
    for row in rows:
        keys = sorted(key for key in found.get(row["place"], ()) if key.endswith(".dcm"))
        digest = digest_of(hashlib.sha256(_read(out, key)).hexdigest() for key in keys)
        wrong += len(keys) != row["slices"] or digest != row["sha256"]
    return stray + wrong


def _objects(endpoint: str, prefix: str) -> Objects:
    settings = SpoolSettings(url=f"s3://{_BUCKET}/{prefix}", endpoint=endpoint)
    return open_objects(settings, lambda: (_KEYS["AWS_ACCESS_KEY_ID"], _KEYS["AWS_SECRET_ACCESS_KEY"]))


def _read(place: Objects, key: str) -> bytes:
    found = place.head(key)
    return (place.get(key, 0, found.size_bytes) or b"") if found is not None else b""
