"""Receiver, worker and courier on three hosts that share a database and a bucket and no folder."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.object_stores import BUCKET, MotoServer
from tests.slice.harness import RunningNode, StoreScp, push
from tests.slice.test_kill import assert_once_and_whole

# The receiver ends twice in the middle of an instance: after the object store has it, and before.
KILLED_TWICE = """
import os, pathlib, signal
from storage.shared_spool import SharedSpool
keep, flags = SharedSpool.keep, pathlib.Path({flags!r})
def die(when, count):
    if len(list(SharedSpool.kept)) == count and (flags / when).exists():
        (flags / when).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
def killed(self, parts, now):
    die("before", 5)
    name = keep(self, parts, now)
    SharedSpool.kept.append(name)
    die("after", 10)
    return name
SharedSpool.kept, SharedSpool.keep = [], killed
"""


def of_the_bucket(server: MotoServer, secret: Path, database: Path | None = None) -> dict[str, str]:
    """Settings of a host; database: of another host, where it is not this one's."""
    secret.write_text("tester:secret\n")
    secret.chmod(0o600)
    node = f'database_url = "sqlite:///{database}"' if database else ""
    place = f'url = "s3://{BUCKET}/spool"\nendpoint = "{server.endpoint}"\ncredentials_file = "{secret}"\n'
    return {"node": node, "extra": f"[spool]\n{place}"}


def test_three_hosts_share_a_bucket_and_no_folder(
    real_data: Path,
    node_at: Callable[..., RunningNode],
    tps: StoreScp,
    s3: MotoServer,
    limits: Callable[[str], None],
    tmp_path: Path,
) -> None:
    flags, secret = tmp_path / "flags", tmp_path / "secret"
    flags.mkdir()
    for when in ("before", "after"):
        (flags / when).touch()
    limits(KILLED_TWICE.format(flags=str(flags)))
    source = real_data / "ct" / "siemens_chest_ncct"
    scanner = node_at(tps, **of_the_bucket(s3, secret)).start("receive")
    for _ in range(2):
        assert push(scanner.port, source).returncode != 0, "the scanner sees that the receiver was killed"
        scanner.stop()
        scanner.start("receive")
    assert list(flags.iterdir()) == []
    assert push(scanner.port, source).returncode == 0
    store = scanner.data_dir / "syncect.sqlite3"
    gpu, sender = (node_at(tps, **of_the_bucket(s3, secret, store)) for _ in range(2))
    gpu.start("work")
    sender.start("deliver")
    (case,) = scanner.wait_for_states("SENT")
    assert_once_and_whole(tps, 30)

    received = {str(file.relative_to(gpu.data_dir / "spool")) for file in gpu.data_dir.rglob("received/*/*.dcm")}
    there = {one.key for one in s3.objects().list("received")}
    assert len(received) == 30
    assert received < there, "one object has no row: its receiver died before the commit"
    assert len(list(sender.data_dir.rglob("derived/*/*.dcm"))) == 30
    assert not list(sender.data_dir.rglob("received/*/*.dcm"))
    uids = {(host.data_dir / "installation.json").read_text() for host in (scanner, gpu, sender)}
    assert len(uids) == 1, "a result names the node, whichever host made it"

    replayed = scanner.run("replay", case.id, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["same"] == 30, "one host alone makes the same bytes"
    verified = sender.run("spool", "verify", "--json")
    assert (verified.returncode, json.loads(verified.stdout)) == (0, {"files": 60, "findings": []}), verified.stderr
    doctor = json.loads(gpu.run("doctor", "--json").stdout)
    (line,) = [one for one in doctor["checks"] if one["check"] == "object store"]
    assert line["state"] == "OK", line
