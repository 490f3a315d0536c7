"""The receiver with an object store says 0x0000 only of what the store has, and 0xA700 soon where that hangs."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from node.network.status import OUT_OF_RESOURCES, SUCCESS
from storage.objects import Objects
from storage.shared_spool import MARK, SharedSpool
from tests.object_stores import MotoServer
from tests.peers.conftest import MakeCt, StartReceiver, Store
from tests.peers.test_receiver_storing import store_one

SOON_S = 8.0  # an association that waits so long for an answer is not given up by any scanner


@pytest.fixture
def objects(s3: MotoServer) -> Objects:
    objects = s3.objects()
    objects.put(MARK, b"{}")
    return objects


@pytest.fixture
def store(store: Store, objects: Objects, tmp_path: Path) -> Store:
    return replace(store, spool=SharedSpool(tmp_path / "shared", objects))


def test_an_instance_is_answered_with_success_when_server_and_row_have_it(
    start_receiver: StartReceiver, store: Store, make_ct: MakeCt, objects: Objects, s3: MotoServer
) -> None:
    receiver = start_receiver()
    assert store_one(receiver, make_ct(instance=1)).Status == SUCCESS
    with s3.stopped():
        begun_s = time.monotonic()
        answer = store_one(receiver, make_ct(instance=2))
        told = "the object store does not answer in time; try again"
        assert (answer.Status, answer.ErrorComment) == (OUT_OF_RESOURCES, told)
        assert time.monotonic() - begun_s < SOON_S
    assert [row.sop_instance_uid for row in store.instances()] == [make_ct(instance=1).SOPInstanceUID]
    assert store_one(receiver, make_ct(instance=2)).Status == SUCCESS, "the scanner sends it again"
    assert {row.spool_name for row in store.instances()} <= {found.key for found in objects.list("received")}
    assert len(store.instances()) == 2


def test_a_duplicate_makes_good_what_the_bucket_lost(
    start_receiver: StartReceiver, store: Store, make_ct: MakeCt, objects: Objects
) -> None:
    receiver = start_receiver()
    assert store_one(receiver, make_ct()).Status == SUCCESS
    (row,) = store.instances()
    for also_here in (False, True):
        objects.delete([row.spool_name])
        if also_here:
            store.spool.path(row.spool_name).unlink()
        assert store_one(receiver, make_ct()).Status == SUCCESS
        assert [found.key for found in objects.list("received")] == [row.spool_name]
