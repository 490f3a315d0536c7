"""The watch is a process of its own: it tells what is wrong when every other process of the node is dead."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from tests.component.node.test_alert_channels import Hook
from tests.departments import Department
from tests.slice.harness import RunningNode, wait_for


@pytest.fixture
def hook():
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_watch_goes_on_when_everything_else_is_dead(tmp_path, tiny_bundle, hook, limits):
    limits("import node.ops.alert_machine as it\nit.MISSING_AFTER_S = 12.0\n")
    node = RunningNode(tmp_path / "node", tiny_bundle, [], extra=f'[alerts]\nwebhook = "{hook.url}"')
    with open_store(load_settings(node.config)) as store:
        Department(store).queued(at=datetime.now(UTC) - timedelta(hours=1))
    try:
        node.start("watch")
        wait_for("the alert of the series", lambda: hook.bodies)
        assert [(alert["kind"], alert["subject"]) for alert in hook.bodies[0]["new"]] == [("overdue", "1")]
        wait_for("the alerts of the dead processes", lambda: len(hook.bodies) > 1)
        dead = {alert["subject"] for body in hook.bodies[1:] for alert in body["new"]}
        assert dead == {"receive", "complete", "work", "deliver"}
        answer = node.run("alerts", "ls", "--json")
        assert {alert["kind"] for alert in json.loads(answer.stdout)} == {"overdue", "process"}
        assert node.stop() == [0]
    finally:
        node.close()
