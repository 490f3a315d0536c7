"""Alerts reach a real web server and a real mail server, whatever these answer."""

import base64
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from config.alerting import SmtpSettings
from node.ops.alert_channels import (
    AT_ONCE,
    ONE_EVERY_S,
    PAUSES_S,
    STORE_AWAY_S,
    ChannelFailed,
    Mail,
    Teller,
    Webhook,
    failing,
)
from node.ops.alert_texts import MOST_LINES, Message, compose, plain_message
from node.ops.alerts import Watch
from storage.alerts import AlertStore, Cause, News
from storage.database import Database
from storage.errors import StoreUnavailable
from tests.conftest import require_program
from tests.peers.certificates import make_certificates

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
HELLO = plain_message("SYNCECT@host", "test", "Hello.\n", T0)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


# -- a web server ----------------------------------------------------------------------------------------------------


class Hook(HTTPServer):
    """Keeps what is POSTed; `status` is its answer, None none at all."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HookHandler)
        self.bodies: list[dict[str, Any]] = []
        self.status: int | None = 200
        self.trickle = b""  # is sent again and again instead of an answer
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/secret-token"


class _HookHandler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.trickle:
            with suppress(OSError):
                while not self.server.released.wait(0.05):
                    self.wfile.write(self.server.trickle)
            return
        if self.server.status is None:
            self.server.released.wait(30)
            return
        self.server.bodies.append({**json.loads(body), "type": self.headers["Content-Type"]})
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def test_a_webhook_gets_json(hook):
    Webhook(hook.url).send(HELLO)
    (body,) = hook.bodies
    assert body["type"] == "application/json; charset=utf-8"
    assert (body["node"], body["subject"]) == ("SYNCECT@host", "[syncect SYNCECT@host] test")
    assert (body["at"], body["text"], body["new"]) == ("2026-01-31T12:00:00Z", "Hello.\n", [])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, "status 500"),
        (404, "status 404"),
        (302, "status 302"),
        (None, "did not answer: it does not answer in time"),
    ],
)
def test_what_a_webhook_does_not_take_is_a_sentence_without_its_address(hook, status, words):
    hook.status = status
    with pytest.raises(ChannelFailed, match=words) as failed:
        Webhook(hook.url, timeout_s=0.2).send(HELLO)
    assert "secret" not in str(failed.value)
    assert failed.value.__cause__ is None


@pytest.mark.parametrize("trickle", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["bytes", "heads"])
def test_a_webhook_that_never_ends_its_answer_is_left(hook, trickle):
    hook.trickle = trickle
    with pytest.raises(ChannelFailed, match="the webhook did not answer"):
        Webhook(hook.url, timeout_s=0.2).send(HELLO)


def test_a_webhook_that_is_not_there(hook):
    with pytest.raises(ChannelFailed, match="cannot be reached: connection refused"):
        Webhook("http://127.0.0.1:1/x").send(HELLO)


# -- a mail server ---------------------------------------------------------------------------------------------------


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a mail needs (RFC 5321), with STARTTLS and AUTH where it has a certificate."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.tls = tls
        self.mails: list[Any] = []
        self.logins: list[str] = []
        self.refuses: dict[str, str] = {}  # command -> answer

    def settings(self, **changes: Any) -> SmtpSettings:
        values = {
            "host": "127.0.0.1",
            "port": self.server_address[1],
            "sender": "a@example.org",
            "to": ("b@example.org",),
        }
        return SmtpSettings(**{**values, "starttls": self.tls is not None, **changes})


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._say("220 ready")
        secure = False
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if answer := self.server.refuses.get(verb):
                self._say(answer)
            elif verb == "EHLO":
                self._say("250-hello" + ("\r\n250-AUTH PLAIN" if secure else ""))
                self._say("250 STARTTLS" if self.server.tls and not secure else "250 HELP")
            elif verb == "STARTTLS" and self.server.tls:
                self._say("220 go")
                self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile, secure = self.connection.makefile("rb"), self.connection.makefile("wb", 0), True
            elif verb == "AUTH":
                self.server.logins.append(base64.b64decode(line.split()[2]).decode())
                self._say("235 ok")
            elif verb == "DATA":
                self._say("354 go")
                self._take()
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line)
        self.server.mails.append(message_from_bytes(b"".join(lines), policy=policy.default))
        self._say("250 taken")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def serve_mail():
    servers: list[tuple[MailServer, threading.Thread]] = []

    def start(tls: ssl.SSLContext | None = None) -> MailServer:
        server = MailServer(tls)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_mail_without_a_password(serve_mail):
    server = serve_mail()
    Mail(server.settings(to=("b@example.org", "c@example.org"))).send(HELLO)
    (mail,) = server.mails
    assert (mail["Subject"], mail["From"]) == ("[syncect SYNCECT@host] test", "a@example.org")
    assert mail["To"] == "b@example.org, c@example.org"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content() == "Hello.\r\n"


def test_a_password_goes_through_tls_only(serve_mail, tmp_path):
    certificate = make_certificates(tmp_path, require_program("openssl")).settings()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(certificate.certificate, certificate.private_key)
    server = serve_mail(server_tls)
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    settings = server.settings(username="me", password_file=secret)
    trusting = ssl.create_default_context(cafile=str(certificate.ca))
    Mail(settings, tls=lambda: trusting).send(HELLO)
    assert len(server.mails) == 1
    assert server.logins == ["\0me\0s3cret"]
    with pytest.raises(ChannelFailed, match="the mail server cannot be used: "):
        Mail(settings).send(HELLO)  # nobody on this machine knows the CA
    assert len(server.logins) == 1
    secret.unlink()
    with pytest.raises(ChannelFailed, match="password_file cannot be read: no such file"):
        Mail(settings, tls=lambda: trusting).send(HELLO)


def test_what_a_mail_server_refuses_is_a_sentence(serve_mail):
    server = serve_mail()
    server.refuses = {"MAIL": "550 not you, a@example.org"}
    with pytest.raises(ChannelFailed, match=r"^the mail server answered with status 550$"):
        Mail(server.settings()).send(HELLO)
    server.refuses = {"RCPT": "550 nobody"}
    with pytest.raises(ChannelFailed, match="refused every recipient"):
        Mail(server.settings()).send(HELLO)
    with pytest.raises(ChannelFailed, match="the mail server cannot be used: "):
        Mail(server.settings(starttls=True)).send(HELLO)
    with pytest.raises(ChannelFailed, match="connection refused"):
        Mail(server.settings(port=1)).send(HELLO)


@pytest.mark.parametrize("answer", ["421 closing", "500 what?"])
def test_a_mail_that_was_taken_is_not_sent_again_whatever_the_server_says_then(serve_mail, answer):
    server = serve_mail()
    server.refuses = {"QUIT": answer}
    Mail(server.settings(), timeout_s=0.5).send(HELLO)
    assert len(server.mails) == 1


def test_a_mail_server_that_greets_byte_by_byte_is_left(hook):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            peer, _ = listener.accept()
            with peer, suppress(OSError):
                while not hook.released.wait(0.05):
                    peer.sendall(b"2")

        thread = threading.Thread(target=greet)
        thread.start()
        settings = SmtpSettings(
            host="127.0.0.1", port=listener.getsockname()[1], sender="a@example.org", to=("b@example.org",)
        )
        with pytest.raises(ChannelFailed, match="the mail server"):
            Mail(settings, timeout_s=0.2).send(HELLO)
        thread.join()


# -- what is told, and when ------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Recorder:
    """A channel that keeps its messages; `why` makes it fail."""

    name = "webhook"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.why = ""
        self.tries = 0

    def send(self, message: Message) -> None:
        self.tries += 1
        if self.why:
            raise ChannelFailed(self.why)
        self.messages.append(message)


class Scene:
    def __init__(self, database: Database) -> None:
        self.alerts, self.channel, self.clock = AlertStore(database), Recorder(), Clock()
        self.teller = Teller(
            self.channel,
            self.alerts,
            "N@h",
            remind_s=600,
            zone=UTC,
            clock=lambda: at(self.clock.now_s),
            clock_s=self.clock,
        )

    def tick(self, seconds: float) -> None:
        self.clock.now_s = seconds
        self.teller.tick()

    def settle(self, *subjects: str) -> None:
        causes = [Cause("peer", subject, f"{subject} is away") for subject in subjects]
        self.alerts.settle([*causes, *failing([self.teller], at(0))], ["peer", "channel"], at(self.clock.now_s))


@pytest.fixture
def scene(sqlite_file):
    database = Database(f"sqlite:///{sqlite_file}")
    yield Scene(database)
    database.close()


def test_one_message_has_all_that_is_new_then_reminders_then_the_end(scene):
    scene.settle("tps", "archive")
    scene.tick(1)
    scene.tick(2)
    scene.settle("tps", "archive", "third")
    scene.tick(601)
    scene.settle("archive", "third")
    scene.tick(602)
    first, second, third = scene.channel.messages
    assert first.subject == "[syncect N@h] 2 new: peer"
    assert first.text.startswith("New:\n  1  2026-01-31 12:00  peer: tps is away\n  2  2026-01-31 12:00  peer: archive")
    assert second.subject == "[syncect N@h] 1 new, 2 still open: peer"
    assert third.subject == "[syncect N@h] 1 over: peer"
    assert [alert["closed_at"] for alert in third.body["over"]] == ["2026-01-31T12:10:01Z"]
    assert "syncect alerts ack" in third.text


def test_a_channel_that_fails_is_tried_again_with_longer_pauses_and_is_an_alert_itself(scene):
    scene.channel.why = "the webhook answered with status 500"
    scene.settle("tps")
    for second in range(0, 100, 5):
        scene.tick(second)
    assert scene.channel.tries == 1 + len([pause for pause in (PAUSES_S[0], sum(PAUSES_S[:2])) if pause < 100])
    scene.settle("tps")
    assert [alert.kind for alert in scene.alerts.open()] == ["peer", "channel"]
    assert "alerts cannot be told by webhook: the webhook answered with status 500" in scene.alerts.open()[1].text
    scene.channel.why = ""
    scene.tick(9999)
    (message,) = scene.channel.messages
    assert [alert["kind"] for alert in message.body["new"]] == ["peer"]  # it does not tell of itself
    scene.settle("tps")
    assert [alert.kind for alert in scene.alerts.open()] == ["peer"]


def test_a_channel_that_hangs_stops_no_watch(hook, sqlite_file):
    hook.status = None
    database = Database(f"sqlite:///{sqlite_file}")
    alerts = AlertStore(database)
    alerts.settle([Cause("peer", "tps", "away")], ["peer"], at(0))
    teller = Teller(Webhook(hook.url, timeout_s=30), alerts, "N@h", remind_s=600)
    thread = threading.Thread(target=teller.tick)
    thread.start()
    alerts.settle([Cause("peer", "archive", "away")], ["peer"], at(1))  # neither a lock nor a transaction is held
    assert len(alerts.open()) == 1
    hook.released.set()
    thread.join(60)
    assert not thread.is_alive()
    assert teller.trouble.startswith("the webhook did not answer")
    database.close()


def test_a_store_that_cannot_be_used_is_told_once_and_so_is_its_end(scene, monkeypatch):
    def gone(*_: Any, **__: Any) -> News:
        raise StoreUnavailable("the store cannot be used: disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(scene.alerts, "news", gone)
        for second in (0, STORE_AWAY_S - 1, STORE_AWAY_S, STORE_AWAY_S + 10):
            scene.tick(second)
        (message,) = scene.channel.messages
        assert message.text == "the store cannot be used: disk I/O error\n"
        scene.tick(STORE_AWAY_S + 600)
        assert len(scene.channel.messages) == 2
    scene.tick(STORE_AWAY_S + 700)
    scene.tick(STORE_AWAY_S + 701)
    assert [message.subject for message in scene.channel.messages[2:]] == ["[syncect N@h] the store can be used again"]


def test_a_store_that_can_only_be_read_makes_no_flood_of_messages(scene, monkeypatch):
    def full(*_: Any) -> None:
        raise StoreUnavailable("the store cannot be used: database or disk is full")

    scene.settle("tps")
    with monkeypatch.context() as patch:
        patch.setattr(scene.alerts, "told", full)
        for second in range(0, 300, 5):
            scene.tick(second)
    subjects = [message.subject for message in scene.channel.messages]
    assert subjects == ["[syncect N@h] 1 new: peer", "[syncect N@h] the store cannot be used"]
    scene.tick(301)
    scene.tick(302)
    assert [message.subject for message in scene.channel.messages[2:]] == ["[syncect N@h] the store can be used again"]


def test_the_watch_says_that_it_can_keep_no_alert_and_the_channel_tells_it(scene, monkeypatch):
    def full(*_: Any) -> None:
        raise StoreUnavailable("the store cannot be used: database or disk is full")

    watch = Watch([], scene.alerts, on_store=lambda trouble: setattr(scene.teller, "store_trouble", trouble))
    with monkeypatch.context() as patch:
        patch.setattr(scene.alerts, "settle", full)
        with pytest.raises(StoreUnavailable):
            watch.tick()
        scene.tick(0)
        scene.tick(STORE_AWAY_S)
        assert [message.text for message in scene.channel.messages] == [f"{scene.teller.store_trouble}\n"]
    watch.tick()
    scene.tick(STORE_AWAY_S + 5)
    assert len(scene.channel.messages) == 2


def test_alerts_that_come_one_after_the_other_are_gathered(scene):
    peers = [f"peer{n}" for n in range(60)]
    for number in range(len(peers)):
        scene.settle(*peers[: number + 1])
        scene.tick(number * 10)
    assert len(scene.channel.messages) <= AT_ONCE + 600 / ONE_EVERY_S
    scene.tick(600 + ONE_EVERY_S)
    told = [alert["subject"] for message in scene.channel.messages for alert in message.body["new"]]
    assert sorted(told) == sorted(peers)
    scene.settle()
    scene.tick(600 + 2 * ONE_EVERY_S)
    assert scene.channel.messages[-1].subject == "[syncect N@h] 60 over: peer"


def test_hundreds_of_alerts_fit_into_one_mail(scene):
    scene.settle(*(f"peer{n}" for n in range(300)))
    message = compose("N@h", scene.alerts.news("x", at(0), remind_s=600), at(0), UTC)
    assert f"  and {300 - MOST_LINES} more" in message.text
    assert len(message.body["new"]) == 300
    assert message.subject == "[syncect N@h] 300 new: peer"
