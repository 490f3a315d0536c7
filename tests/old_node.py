"""Run by tests with the code of an earlier commit: makes a node's data, or goes on with it.

python old_node.py make CONFIG      series, jobs and deliveries in every state
python old_node.py go_on CONFIG     deliver what is open, claim what is queued, release what is held, receive more
"""

import hashlib
import json
import sys
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

import storage
from config.load import load_settings
from node.bootstrap.store import open_store
from storage.tables import Instance
from tests.departments import START, Department


def make(department) -> None:
    """Bring series, jobs and deliveries into every state."""
    node = department.node
    number = lambda case_id: node.overview.case(case_id).job_id  # noqa: E731
    department.incomplete()
    department.skipped()
    department.failed()
    department.held()
    department.sent()
    sent = node.outbox.awaiting_confirmation("tps", START)
    node.outbox.confirm(sent.id, "c", "all are there", START)
    department.sent()
    department.send_failed()
    node.jobs.cancel(number(department.held("wrong position")), "op", "wrong", START)
    node.jobs.cancel(number(department.produced()), "op", "not wanted", START)
    node.jobs.reject(number(department.held("looks strange")), "op", "bad", START)
    department.change(department.held("superseded soon"))
    department.sending(accepted=1)
    department.produced()
    node.outbox.claim("courier", "tps", 60, START)
    department.running()
    department.queued()
    department.arrive()
    with node.database.write() as session:
        for row in session.scalars(select(Instance)):
            data = f"pixels of {row.sop_instance_uid} {row.id}".encode()
            node.spool.path(row.spool_name).write_bytes(data)
            row.sha256, row.size_bytes = hashlib.sha256(data).hexdigest(), len(data)


def go_on(department) -> dict[str, int]:
    """Do a bit of everything with data that is there; what was done."""
    node, later = department.node, START + timedelta(minutes=30)
    freed = len(node.outbox.release_expired(later)) + len(node.jobs.release_expired(later))
    sent = 0
    while claimed := node.outbox.claim("c2", "tps", 60, later):
        for item in claimed.missing:
            node.outbox.record_accepted(claimed.id, "c2", item.product_id, 0, lease_s=60, now=later)
        node.outbox.finish_sent(claimed.id, "c2", "", later)
        sent += 1
    claims = 0
    while job := node.jobs.claim("w2", 60, later):
        node.jobs.fail(job.id, "w2", "no device", later)
        claims += 1
    department._arrived = 90 + len(node.overview.cases(limit=1000))
    department.arrive()
    return {"freed": freed, "sent": sent, "claims": claims}


def main() -> None:
    """What the arguments say; prints what was done, as JSON."""
    assert Path.cwd() in Path(storage.__path__[0]).parents, "this is not the earlier code"
    with open_store(load_settings(Path(sys.argv[2]))) as node:
        done = {"make": make, "go_on": go_on}[sys.argv[1]](Department(node))
    sys.stdout.write(json.dumps(done))


if __name__ == "__main__":
    main()
