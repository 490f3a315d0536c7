"""Tells people what is wrong: by a webhook and by e-mail, each in a thread of its own, tried again with longer pauses.

A message is marked as told after it went out: a process that is killed in between tells it twice, never not at all.
"""

import json
import logging
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from email.message import EmailMessage
from email.utils import format_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.error import HTTPError, URLError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from config.alerting import SmtpSettings
from node.ops.alert_texts import Message, compose, plain_message
from storage.alerts import AlertStore, Cause, News
from storage.errors import StorageError, StoreUnavailable

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0  # for a connection, and for each answer on it
PAUSES_S: Final = (30.0, 60.0, 120.0, 300.0, 900.0)  # after so many failures in a row
STORE_AWAY_S: Final = 120.0
AT_ONCE, ONE_EVERY_S = 6, 300.0
"""So many messages go out as soon as there is news, then one in so many seconds: what comes meanwhile is gathered."""


class ChannelFailed(Exception):
    """A message could not be handed over; the sentence names no password and no address of a webhook."""


class Channel(Protocol):
    """A way to tell people."""

    @property
    def name(self) -> str:
        """How the settings call it."""
        ...

    def send(self, message: Message) -> None:
        """Hand a message over; raises ChannelFailed."""


class _NoRedirect(HTTPRedirectHandler):
    """A webhook that has moved is a setting to correct: a redirected POST would arrive as an empty GET."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing; the caller gets the status as an error."""


class _Http(HTTPHandler):
    """Shows the connection that it opens."""

    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self._opened = opened

    def http_open(self, request: Request) -> HTTPResponse:
        """For http://."""
        return self.do_open(_shown(HTTPConnection, self._opened), request)


class _Https(HTTPSHandler):
    """Shows the connection that it opens."""

    def __init__(self, opened: list[HTTPConnection]) -> None:
        super().__init__()
        self._opened = opened

    def https_open(self, request: Request) -> HTTPResponse:
        """For https://."""
        return self.do_open(_shown(HTTPSConnection, self._opened), request)


class _Smtp(smtplib.SMTP):
    """Shows itself before it connects."""

    def __init__(self, opened: list[smtplib.SMTP], host: str, port: int, *, timeout: float) -> None:
        opened.append(self)
        super().__init__(host, port, timeout=timeout)


def _shown(kind: type[HTTPConnection], opened: list[HTTPConnection]) -> Callable[..., HTTPConnection]:
    def connection(host: str, **arguments: Any) -> HTTPConnection:
        opened.append(kind(host, **arguments))
        return opened[-1]

    return connection


@contextmanager
def _cut_off(opened: Sequence[HTTPConnection | smtplib.SMTP], timeout_s: float) -> Iterator[None]:
    """End what is still connected after three times as long as one answer may take.

    The timeout bounds each single wait; what sends one byte after the other would be listened to for ever.
    """

    def cut() -> None:
        for one in opened:
            if one.sock is not None:
                with suppress(OSError):
                    one.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(3 * timeout_s, cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True)
class Webhook:
    """POSTs `Message.body` as JSON; any status 2xx is a success."""

    url: str
    timeout_s: float = TIMEOUT_S
    name: str = "webhook"

    def send(self, message: Message) -> None:
        """Raises ChannelFailed."""
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "syncect"}
        request = Request(self.url, json.dumps(message.body).encode(), headers)  # noqa: S310 - http or https: settings
        opened: list[HTTPConnection] = []
        opener = build_opener(_NoRedirect(), _Http(opened), _Https(opened))
        try:
            with _cut_off(opened, self.timeout_s), opener.open(request, timeout=self.timeout_s):
                return
        except HTTPError as error:
            error.close()
            raise ChannelFailed(f"the webhook answered with status {error.code}") from None
        except URLError as error:
            raise ChannelFailed(f"the webhook cannot be reached: {_words(error.reason)}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise ChannelFailed(f"the webhook did not answer: {_words(error)}") from None


@dataclass(frozen=True)
class Mail:
    """Sends one message to all addresses of the settings; the password is read anew for each."""

    settings: SmtpSettings
    timeout_s: float = TIMEOUT_S
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    name: str = "smtp"

    def send(self, message: Message) -> None:
        """Raises ChannelFailed."""
        opened: list[smtplib.SMTP] = []
        try:
            with (
                _cut_off(opened, self.timeout_s),
                closing(_Smtp(opened, self.settings.host, self.settings.port, timeout=self.timeout_s)) as server,
            ):
                refused = self._hand_over(server, message)
                with suppress(OSError, smtplib.SMTPException):  # it has the mail, whatever it answers now
                    server.quit()
        except smtplib.SMTPResponseException as error:
            raise ChannelFailed(f"the mail server answered with status {error.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused:
            raise ChannelFailed("the mail server refused every recipient") from None
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise ChannelFailed(f"the mail server cannot be used: {_words(error)}") from None
        if refused:
            log.warning(
                "the mail server refused %d of %d recipients",
                len(refused),
                len(self.settings.to),
                extra={"event": "mail_recipients_refused"},
            )

    def _hand_over(self, server: smtplib.SMTP, message: Message) -> Collection[str]:
        """The recipients that the server refused, if it took others."""
        smtp = self.settings
        if smtp.starttls:
            server.starttls(context=self.tls())
        if smtp.username and smtp.password_file is not None:
            server.login(smtp.username, _password(smtp.password_file))
        return server.send_message(self._mail(message))

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["From"], mail["To"] = self.settings.sender, ", ".join(self.settings.to)
        mail["Subject"], mail["Date"] = message.subject, format_datetime(datetime.now(UTC))
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office note comes back
        mail.set_content(message.text)
        return mail


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except OSError as error:
        raise ChannelFailed(f"alerts.smtp.password_file cannot be read: {_words(error)}") from None


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return (getattr(error, "strerror", None) or type(error).__name__).lower()


class Teller:
    """`tick()` tells on one channel what is new there; `trouble` says why it cannot, or is "".

    store_trouble: set by the watch, why the store can keep no alerts at present, or "".
    """

    def __init__(
        self,
        channel: Channel,
        alerts: AlertStore,
        node: str,
        *,
        remind_s: float,
        quiet: Collection[str] = (),
        zone: tzinfo | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel, self._alerts, self._node = channel, alerts, node
        self._remind_s, self._quiet, self._zone = remind_s, quiet, zone
        self._clock, self._clock_s = clock, clock_s
        self.name, self.trouble, self.store_trouble = channel.name, "", ""
        self._unwritten: tuple[News, datetime] | None = None  # told, and not yet noted in the store
        self._failures, self._not_before_s = 0, clock_s()
        self._allowed, self._allowed_at_s = float(AT_ONCE), clock_s()
        self._store_away_s: float | None = None
        self._told_of_store_s: float | None = None

    def tick(self) -> None:
        """Send at most one message; raises nothing that the store or the channel answers."""
        if self._clock_s() < self._not_before_s:
            return
        try:
            self._tell_news()
        except ChannelFailed as error:
            self._pause(str(error))
        except StorageError as error:
            self._tell_of_store(str(error))

    def _tell_news(self) -> None:
        self._note()  # before anything else is told: what is not noted would be told again and again
        if self.store_trouble:
            raise StoreUnavailable(self.store_trouble)
        now, may_tell = self._clock(), self._may_tell()
        news = self._own_left_out(
            self._alerts.news(self._channel.name, now, remind_s=self._remind_s, quiet=self._quiet)
        )
        self._store_is_back(now)
        if news and may_tell:
            self._allowed -= 1
            self._send(compose(self._node, news, now, self._zone))
            self._unwritten = news, now
            self._note()

    def _may_tell(self) -> bool:
        """Whether news goes out now: a night of 500 HELD series, one by one, is no 500 messages."""
        now_s = self._clock_s()
        more = (now_s - self._allowed_at_s) / ONE_EVERY_S
        self._allowed, self._allowed_at_s = min(AT_ONCE, self._allowed + more), now_s
        return self._allowed >= 1

    def _note(self) -> None:
        if self._unwritten is not None:
            self._alerts.told(self.name, *self._unwritten)
            self._unwritten = None

    def _own_left_out(self, news: News) -> News:
        """A channel does not tell of itself that it cannot tell."""
        groups = (news.new, news.reminders, news.over)
        return News(
            *(
                tuple(alert for alert in group if (alert.kind, alert.subject) != ("channel", self.name))
                for group in groups
            )
        )

    def _send(self, message: Message) -> None:
        self._channel.send(message)
        if self._failures:
            log.info(
                "alerts can be told by %s again",
                self.name,
                extra={"event": "alert_channel_works", "channel": self.name},
            )
        self._failures, self.trouble = 0, ""

    def _pause(self, why: str) -> None:
        self._failures += 1
        self._not_before_s = self._clock_s() + PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]
        self.trouble = why
        log.error(
            "alerts cannot be told by %s: %s",
            self.name,
            why,
            extra={"event": "alert_channel_failed", "channel": self.name},
        )

    # -- a store that can keep no alert ------------------------------------------------------------------------------

    def _tell_of_store(self, why: str) -> None:
        """Say so once it has lasted, and again after `remind_s`: such an alert can be kept nowhere but here."""
        now_s = self._clock_s()
        self._store_away_s = now_s if self._store_away_s is None else self._store_away_s
        told_s = self._told_of_store_s
        if now_s - self._store_away_s < STORE_AWAY_S or (told_s is not None and now_s - told_s < self._remind_s):
            return
        try:
            self._send(plain_message(self._node, "the store cannot be used", f"{why}\n", self._clock()))
            self._told_of_store_s = now_s
        except ChannelFailed as error:
            self._pause(str(error))

    def _store_is_back(self, now: datetime) -> None:
        self._store_away_s = None
        if self._told_of_store_s is not None:
            self._send(plain_message(self._node, "the store can be used again", "Over.\n", now))
            self._told_of_store_s = None


def failing(tellers: Collection[Teller], _now: datetime) -> Iterator[Cause]:
    """Channels that cannot tell; kind `channel`."""
    for teller in tellers:
        if teller.trouble:
            text = f"alerts cannot be told by {teller.name}: {teller.trouble}; next: `syncect alerts test`"
            yield Cause("channel", teller.name, text)
