"""An allowed peer is given by address, network or name; a name server that fails costs nobody else anything."""

import logging
import socket
import threading
from collections.abc import Iterable

import pytest

from config.settings import ScpSettings
from node.network.server import Rejection
from node.receive.admission import PeerHosts, Places, Session
from node.receive.host_names import REFRESH_S, RETRY_S

LONG_S = 10.0


class Names:
    """A name server whose answers a test sets, and the clock of its asker."""

    def __init__(self, *answers: Iterable[str] | Exception) -> None:
        self.answers, self.now_s = list(answers), 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, _name: str) -> Iterable[str]:
        self.may_answer.wait(LONG_S)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hosts(self, *hosts: str) -> PeerHosts:
        return PeerHosts(hosts, self, lambda: self.now_s)


def settled(hosts: PeerHosts, address: str) -> bool:
    """The answer once no look-up is under way any more."""
    for thread in threading.enumerate():
        if thread.name.startswith("look-up-"):
            thread.join(LONG_S)
    return hosts.has("ct", address, wait_s=LONG_S)


@pytest.mark.parametrize(
    ("host", "inside", "outside"),
    [
        ("10.1.2.0/24", "10.1.2.255", "10.1.3.0"),
        ("10.1.2.3", "::ffff:10.1.2.3", "10.1.2.4"),
        ("::ffff:10.1.2.3", "10.1.2.3", "::1"),
        ("10.1.2.0/31", "::ffff:10.1.2.1", "10.1.2.2"),
        ("2001:db8::/32", "2001:db8:1::5", "2001:db9::5"),
        ("0.0.0.0/0", "192.0.2.1", "2001:db8::1"),
    ],
)
def test_addresses_and_networks(host: str, inside: str, outside: str) -> None:
    hosts = PeerHosts([host, ""])
    assert hosts.has(host, inside)
    assert hosts.any_has(inside)
    assert not hosts.has(host, outside)
    assert not hosts.any_has("no address")


def test_a_name_is_looked_up_and_looked_up_again() -> None:
    names = Names(["10.1.2.3", "2001:db8::3"], ["10.1.2.4"])
    hosts = names.hosts("ct")
    assert settled(hosts, "10.1.2.3")
    assert settled(hosts, "2001:db8::3")
    names.now_s += REFRESH_S
    hosts.any_has("10.1.2.3")
    assert settled(hosts, "10.1.2.4")
    assert not settled(hosts, "10.1.2.3")


def test_a_name_server_that_does_not_answer_holds_up_nobody_else() -> None:
    names = Names(["10.1.2.3"])
    names.may_answer.clear()
    hosts = names.hosts("ct", "10.1.2.9")
    assert hosts.any_has("10.1.2.9")  # would wait for ten seconds
    assert not hosts.any_has("10.1.2.3")
    names.may_answer.set()
    assert settled(hosts, "10.1.2.3")


def test_a_name_server_that_is_down_takes_nothing_away_and_a_name_that_is_gone_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    down, gone = socket.gaierror(socket.EAI_AGAIN, "not now"), socket.gaierror(socket.EAI_NONAME, "no such name")
    names = Names(["10.1.2.3"], down, down, gone, ["10.1.2.3"])
    hosts = names.hosts("ct")
    assert settled(hosts, "10.1.2.3")
    for step_s, known in ((REFRESH_S, True), (RETRY_S, True), (RETRY_S, False), (RETRY_S, True)):
        names.now_s += step_s
        hosts.any_has("10.1.2.3")
        assert settled(hosts, "10.1.2.3") is known
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "the name ct cannot be looked up: not now; its last addresses still count" in messages[0]
    assert "found again" in messages[1]


def test_a_peer_is_admitted_by_network_and_refused_by_a_name_that_does_not_exist() -> None:
    some = Places(
        ScpSettings.model_validate(
            {"allowed_peers": [{"ae_title": "A", "host": "10.1.0.0/16"}, {"ae_title": "B", "host": "no-such.invalid"}]}
        )
    )
    assert isinstance(some.admit("SYNCECT", "A", "10.1.200.7", None), Session)
    assert isinstance(some.admit("SYNCECT", "A", "10.2.0.1", None), Rejection)
    assert isinstance(some.admit("SYNCECT", "B", "10.1.200.7", None), Rejection)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_a_network_of_ipv4_may_be_written_as_one_of_ipv6(address: str) -> None:
    hosts = PeerHosts(["::ffff:10.1.2.0/120", "::ffff:10.9.9.9"])
    assert hosts.has("::ffff:10.1.2.0/120", address)
    assert not hosts.has("::ffff:10.9.9.9", address)
