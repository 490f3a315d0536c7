"""Connections that only occupy the page are ended, so that nobody shuts out the others with them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from config.settings import Settings, WebSettings
from node.beats import no_beat
from node.bootstrap.store import Node
from node.web import connections
from node.web.server import Page
from storage.database import Database
from tests.slice.harness import free_port, wait_for

HEAD = b"GET /login HTTP/1.1\r\nHost: localhost\r\n"
LARGE = b"GET /static/vendor/htmx-2.0.11.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOON_S = 10.0  # for a test on a busy machine; the limits of the tests are far below


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_WITHIN_S", 0.4)
    monkeypatch.setattr(connections, "ANSWER_WITHIN_S", 0.8)
    monkeypatch.setattr(connections, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(connections, "MOST_OF_ONE_ADDRESS", 5)


@pytest.fixture
def port(sqlite_file) -> Iterator[int]:
    """Where the page answers."""
    with served(WebSettings(port=free_port()), sqlite_file) as port:
        yield port


@contextmanager
def served(web: WebSettings, sqlite_file) -> Iterator[int]:
    node = Node(Settings(web=web), Database(f"sqlite:///{sqlite_file}"), "", writable=True)
    stop = threading.Event()
    thread = threading.Thread(target=Page(web).run, args=(node, stop, no_beat))
    thread.start()
    try:
        wait_for("an answer", lambda: answers(web.port))
        yield web.port
    finally:
        stop.set()
        thread.join()


def answers(port: int) -> bool:
    try:
        with connected(port, HEAD + b"Connection: close\r\n\r\n") as connection:
            return connection.recv(100).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def connected(port: int, *parts: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=SOON_S)
    for part in parts:
        connection.sendall(part)
    return connection


def is_ended(connection: socket.socket) -> bool:
    """Whether the page closes it, whatever it answers before; TimeoutError where it stays open."""
    try:
        while connection.recv(65536):
            continue
    except ConnectionResetError:
        pass
    connection.close()
    return True


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        HEAD,
        HEAD + b"\r\n" + HEAD,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a second head", "a body without an end"],
)
def test_whoever_does_not_finish_a_request_is_let_go(port, begin):
    assert is_ended(connected(port, begin))


def test_a_drop_a_second_keeps_no_connection_open(port):
    connection = connected(port, HEAD)

    def drip() -> bool:
        try:
            connection.sendall(b"X: y\r\n")
        except OSError:
            return True
        return False

    wait_for("the end of it", drip, SOON_S)


def test_whoever_does_not_read_the_answers_is_let_go(port):
    connection = connected(port)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(0.1)

    def ask_on() -> bool:
        try:
            connection.sendall(LARGE * 100)
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    wait_for("the end of it", ask_on, SOON_S)


def test_one_address_takes_no_more_than_its_share(port):
    held = [connected(port, HEAD) for _ in range(5)]
    assert is_ended(connected(port, HEAD + b"\r\n"))
    for connection in held:
        connection.close()
    wait_for("its share again", lambda: answers(port), SOON_S)


def test_a_trusted_proxy_speaks_for_many(sqlite_file):
    with served(WebSettings(port=free_port(), trusted_proxies=("127.0.0.1",)), sqlite_file) as port:
        held = [connected(port, HEAD) for _ in range(7)]
        assert answers(port)
        for connection in held:
            connection.close()
