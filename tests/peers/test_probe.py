"""Destinations are asked by C-ECHO whether they are there, and not more often than the settings say."""

from datetime import UTC, datetime, timedelta

import pytest
from pynetdicom import AE, evt

from config.settings import DestinationSettings
from node.dicom.constants import CT_IMAGE_STORAGE
from node.send.probe import Probe
from storage.peers import PeerStore
from tests.slice.harness import free_port

NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def tps():
    """A TPS that counts the C-ECHOs that it got; `start` and `stop` bring it and take it away."""
    entity, echoes = AE(ae_title="TPS"), []
    for uid in (VERIFICATION, CT_IMAGE_STORAGE):
        entity.add_supported_context(uid)

    def on_echo(_event) -> int:
        echoes.append(NOW)
        return 0x0000

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, on_echo)])
    assert server is not None
    yield server, echoes
    server.shutdown()


def probe_of(database, port: int, now: list[datetime], **settings) -> Probe:
    peer = DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=port, **settings)
    return Probe(PeerStore(database), [peer], "SYNCECT", clock=lambda: now[0])


def test_a_destination_is_asked_when_nobody_has_for_so_long(database, tps):
    server, echoes = tps
    now = [NOW]
    probe = probe_of(database, server.server_address[1], now, echo_s=300)
    for minutes, asked in ((0, 1), (4, 1), (5, 2), (6, 2), (11, 3)):
        now[0] = NOW + timedelta(minutes=minutes)
        probe.tick()
        assert len(echoes) == asked, minutes
    (peer,) = PeerStore(database).all()
    assert (peer.answered_at, peer.failing_since) == (now[0], None)


def test_an_answer_to_what_was_sent_counts(database, tps):
    server, echoes = tps
    PeerStore(database).answered("tps", NOW - timedelta(minutes=1))
    probe_of(database, server.server_address[1], [NOW], echo_s=300).tick()
    assert not echoes


def test_one_that_is_away_is_noted_and_asked_again(database):
    now = [NOW]
    probe = probe_of(database, free_port(), now, echo_s=60)
    probe.tick()
    now[0] = NOW + timedelta(minutes=2)
    probe.tick()
    (peer,) = PeerStore(database).all()
    assert (peer.failing_since, peer.answered_at) == (NOW, None)
    assert "refused" in peer.reason


def test_nobody_is_asked_where_the_settings_say_so(database, tps):
    server, echoes = tps
    probe_of(database, server.server_address[1], [NOW], echo_s=0).tick()
    assert not echoes


def test_a_clock_that_was_set_back_silences_nobody(database, tps):
    server, echoes = tps
    now = [NOW]
    probe = probe_of(database, server.server_address[1], now, echo_s=300)
    probe.tick()
    now[0] = NOW - timedelta(hours=3)
    probe.tick()
    assert len(echoes) == 2
