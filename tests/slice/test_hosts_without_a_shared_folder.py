"""Receiver, worker and courier on three hosts that share a PostgreSQL database and a bucket, and no folder."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.builders import make_series
from tests.object_stores import BUCKET, MotoServer
from tests.slice.harness import RunningNode, StoreScp, push
from tests.slice.test_kill import assert_once_and_whole

# The receiver ends in the middle of an instance, which the object store has and no row.
KILLED = """
import os, pathlib, signal
from storage.shared_spool import SharedSpool
keep, flag, kept = SharedSpool.keep, pathlib.Path({flag!r}), []
def killed(self, parts, now):
    kept.append(keep(self, parts, now))
    if len(kept) == 5 and flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return kept[-1]
SharedSpool.keep = killed
"""


def of_the_bucket(server: MotoServer, secret: Path) -> str:
    """The section of the settings of each host."""
    secret.write_text("tester:secret\n")
    secret.chmod(0o600)
    place = f'url = "s3://{BUCKET}/spool"\nendpoint = "{server.endpoint}"\ncredentials_file = "{secret}"\n'
    return f"[spool]\n{place}"


def test_three_hosts_share_a_bucket_and_no_folder(
    node_at: Callable[..., RunningNode],
    tps: StoreScp,
    s3: MotoServer,
    limits: Callable[[str], None],
    vacant_url: Callable[[str], str],
    tmp_path: Path,
) -> None:
    flag, bucket = tmp_path / "flag", of_the_bucket(s3, tmp_path / "secret")
    url = vacant_url("postgresql")
    flag.touch()
    limits(KILLED.format(flag=str(flag)))
    source = make_series(tmp_path / "series")
    scanner, gpu, sender = (node_at(tps, database_url=url, extra=bucket) for _ in range(3))
    scanner.start("receive")
    assert push(scanner.port, source).returncode != 0, "the scanner sees that the receiver was killed"
    scanner.stop()
    scanner.start("receive")
    assert push(scanner.port, source).returncode == 0
    gpu.start("work")
    sender.start("deliver")
    (case,) = scanner.wait_for_states("SENT")
    assert_once_and_whole(tps, 10)

    received = {str(file.relative_to(gpu.data_dir / "spool")) for file in gpu.data_dir.rglob("received/*/*.dcm")}
    there = {one.key for one in s3.objects().list("received")}
    assert (len(received), len(there - received)) == (10, 1), "one object has no row: its receiver died before it"
    assert len(list(sender.data_dir.rglob("derived/*/*.dcm"))) == 10
    assert not list(sender.data_dir.rglob("received/*/*.dcm"))
    replayed = scanner.run("replay", case.id, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["same"] == 10, "one host alone makes the same bytes"
