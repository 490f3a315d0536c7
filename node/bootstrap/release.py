"""A person releases a held result: its files say so first, then store and outbox take them in one transaction.

It may be killed at any line: until the transaction the held files are the ones that count, and a folder that was
published without it belongs to no job.
"""

import os
import uuid
from datetime import datetime
from pathlib import Path

from node.bootstrap.store import Node
from node.dicom.doubt_file import copy_doubt
from node.errors import Permanent, Refused
from node.translate.release import override_sentence, write_released
from storage.errors import IllegalTransition
from storage.jobs import RewrittenFiles
from storage.overview import Case


def release_held(node: Node, case: Case, actor: str, reason: str, now: datetime) -> None:
    """HELD -> PRODUCED: write every file once more with who overruled the doubt and why, and fill the outbox.

    Raises Refused and IllegalTransition where it is not HELD, or not any more, and where its route leads to nobody;
    Permanent where the held files are
    damaged, and what the disk answers.
    """
    if case.job_id is None or case.state != "HELD" or case.product_dir is None:
        raise Refused(f"{case.id} is {case.state} and nothing of it is held that could be released")
    destinations = node.destinations_for(case.destinations)
    products = node.overview.products(case)
    held = node.spool.path(case.product_dir)
    node.spool.check_space()
    node.spool.fetch((f"{case.product_dir}/{made.file_name}", made.sha256, None) for made in products)
    node.spool.fetch_folder(case.product_dir)
    # A name that no attempt of a worker has, and no other person who releases the job at this moment.
    staged = node.spool.stage(case.job_id, f"r{uuid.uuid4().hex[:8]}")
    try:
        files = [(held / made.file_name, made.sha256) for made in products]
        digests = write_released(files, case.reason, actor, reason, staged)
        copy_doubt(held, staged)
        _give_to_the_owner_of(held, staged)
        product_dir = node.spool.publish(staged)
    except (FileNotFoundError, Permanent) as error:
        _refuse_where_it_moved(node, case, error)
        raise
    finally:
        node.spool.unstage(staged)
    rewritten = RewrittenFiles(
        product_dir, {made.sop_instance_uid: sha256 for made, sha256 in zip(products, digests, strict=True)}
    )
    override = override_sentence(case.reason, actor, reason, charset=("ISO_IR 192",))  # the store keeps any text
    try:
        node.jobs.release(case.job_id, destinations, actor, reason, now, override=override, rewritten=rewritten)
    except (IllegalTransition, ValueError):  # nothing was committed, so nobody refers to the new files
        node.spool.unstage(node.spool.path(product_dir))
        raise
    node.spool.keep_only(product_dir)


def _refuse_where_it_moved(node: Node, case: Case, error: Exception) -> None:
    """Files vanish where somebody else decided meanwhile, which is what a person has to know then."""
    if (now := node.overview.case(case.id)).state != "HELD":
        raise Refused(f"somebody was faster: it is {now.state} now") from error


def _give_to_the_owner_of(held: Path, staged: Path) -> None:
    """What root writes must be readable for the courier, which runs as the user who owns the held files."""
    if os.geteuid() != 0:
        return
    owner = held.stat()
    for path in (*staged.iterdir(), staged):
        os.chown(path, owner.st_uid, owner.st_gid)
