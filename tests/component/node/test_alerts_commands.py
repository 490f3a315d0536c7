"""`alerts` as an operator types it, `status` that counts them, and the watch that opens them."""

import json
import re
import threading
from datetime import UTC, datetime, timedelta

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from node.bootstrap.watch import make_tellers, make_watch
from storage.alerts import Cause
from tests.component.node.test_alert_channels import Hook

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def open_alerts(config):
    """An overdue series and a silent peer."""
    with open_store(load_settings(config)) as node:
        causes = [Cause("peer", "tps", "tps cannot be reached"), Cause("overdue", "12", "12 is QUEUED")]
        node.alerts.settle(causes, ["peer", "overdue"], datetime.now(UTC) - timedelta(minutes=5))
        yield node


def test_without_an_alert_there_is_a_sentence(run, config):
    assert run("alerts", "ls") == (0, "", "no alert is open\n")
    assert run("alerts", "ls", "--all")[2] == "no alert was ever opened\n"
    assert json.loads(run("alerts", "ls", "--json")[1]) == []


def test_open_alerts_are_listed_with_the_most_urgent_first(run, open_alerts):
    code, out, _ = run("alerts", "ls")
    head, first, second = out.splitlines()
    assert (code, head.split()) == (0, ["ID", "KIND", "SINCE", "TOLD", "STATE", "WHAT"])
    assert first.split(None, 5) == ["1", "peer", "5m", "never", "open", "tps cannot be reached"]
    assert second.split()[:2] == ["2", "overdue"]
    assert [row["subject"] for row in json.loads(run("alerts", "ls", "--json")[1])] == ["tps", "12"]


def test_an_alert_is_acknowledged_with_a_reason_and_listed_until_it_is_over(run, open_alerts):
    code, _, err = run("alerts", "ack", "1", "2", "--reason", "the TPS is\nbeing updated")
    assert (code, err) == (0, "1: acknowledged\n2: acknowledged\n")
    out = run("alerts", "ls")[1]
    assert "known: " in out
    assert "tps cannot be reached (the TPS is being updated)" in out
    open_alerts.alerts.settle([], ["peer"], datetime.now(UTC))
    assert [row["id"] for row in json.loads(run("alerts", "ls", "--json")[1])] == [2]
    assert [row["id"] for row in json.loads(run("alerts", "ls", "--all", "--json")[1])] == [2, 1]
    assert re.search(r"over \d+s ago", run("alerts", "ls", "--all")[1])


def test_what_cannot_be_acknowledged_is_told_by_the_exit_code(run, open_alerts):
    open_alerts.alerts.settle([], ["peer"], datetime.now(UTC))
    assert run("alerts", "ack", "7")[0] == 3
    assert run("alerts", "ack", "x\x1b[1m")[0] == 3
    assert run("alerts", "ack", "1")[0] == 4
    code, _, err = run("alerts", "ack", "7", "1", "2")
    assert (code, err.splitlines()[-1]) == (4, "2: acknowledged")
    assert run("alerts", "ack", "2", "--reason", "x" * 1001)[0] == 2


def test_status_counts_alerts_and_says_the_most_urgent(run, open_alerts):
    facts = json.loads(run("status", "--json")[1])
    assert facts["alerts"] == {
        "open": 2,
        "unacknowledged": 2,
        "most_urgent": "peer: tps cannot be reached",
        "channels_failing": [],
    }
    assert "2 alerts are not acknowledged: peer: tps cannot be reached" in facts["reasons"]
    assert "2 open, 2 of them not acknowledged" in run("status")[1]
    run("alerts", "ack", "1", "2")
    facts = json.loads(run("status", "--json")[1])
    assert (facts["alerts"]["open"], facts["alerts"]["unacknowledged"]) == (2, 0)
    assert not any("acknowledged" in reason for reason in facts["reasons"])


@pytest.fixture
def hook():
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_test_message_goes_through_every_channel(run, config, hook):
    assert run("alerts", "test")[0] == 2
    config.write_text(f'[alerts]\nwebhook = "{hook.url}"\n')
    assert run("alerts", "test")[0] == 0
    assert "This is a test" in hook.bodies[0]["text"]
    hook.status = 500
    code, out, _ = run("alerts", "test", "--json")
    assert (code, json.loads(out)) == (
        5,
        {"webhook": {"ok": False, "detail": "the webhook answered with status 500"}},
    )
    assert "NO" in run("alerts", "test")[1]
    shown = run("config", "show")[1]
    assert "secret-token" not in shown
    assert json.loads(shown)["alerts"]["webhook"] == f"http://127.0.0.1:{hook.server_port}/..."


def test_the_watch_of_a_node_finds_what_is_overdue_and_tells_it_once(run, config, department, hook):
    config.write_text(config.read_text() + f'[alerts]\nwebhook = "{hook.url}"\n')
    department.queued(at=datetime.now(UTC) - timedelta(hours=1), patient="DOE^JANE")
    with open_store(load_settings(config)) as node:
        tellers = make_tellers(node)
        watch = make_watch(node, tellers)
        for _ in range(3):
            watch.tick()
            for teller in tellers:
                teller.tick()
        (body,) = hook.bodies
        assert [(alert["kind"], alert["subject"]) for alert in body["new"]] == [("overdue", "1")]
        assert "DOE" not in json.dumps(body)
        assert [row["id"] for row in json.loads(run("jobs", "ls", "--stuck", "--json")[1])] == ["1"]
        department.node.jobs.cancel(1, "operator", "no longer needed", datetime.now(UTC))
        watch.tick()
        tellers[0].tick()
    assert [alert["subject"] for alert in hook.bodies[1]["over"]] == ["1"]
    assert json.loads(run("alerts", "ls", "--json")[1]) == []
