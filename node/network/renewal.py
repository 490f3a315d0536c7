"""Takes renewed TLS files into use while the process runs: the next connection has them, and no former one ends."""

import logging
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from config.destinations import HttpsSettings
from config.settings import TlsSettings, WebTlsSettings
from node.network.tls import UnusableCertificate, client_context, https_context, page_context, server_context

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, ...], ...]


class Renewed:
    """The TLS context of files that may be replaced at any time; a call gives the one to use for a new connection.

    It looks at the files at each call: four look-ups in a folder, some 10 microseconds. Files that cannot be used, such
    as a new key whose certificate is still to come, change nothing: the former context stays until the files change
    again. A change of the revocation list makes a new context, too, so that no session of before can be resumed.
    """

    def __init__(
        self, place: str, tls: TlsSettings | WebTlsSettings | HttpsSettings, build: Callable[[], ssl.SSLContext]
    ) -> None:
        """Raises UnusableCertificate where there is no former context that could be used instead."""
        self._place, self._build = place, build
        self._files = [value for _, value in tls if isinstance(value, Path)]
        self._lock = threading.Lock()
        self._stamp = self._now()  # before the files are read: a later change is then seen at the next call
        self._context = build()

    def __call__(self) -> ssl.SSLContext:
        """The context of the files as they are now, or as they were when they could be used last."""
        with self._lock:
            stamp = self._now()
            if stamp != self._stamp:
                self._stamp = stamp
                self._renew()
            return self._context

    def _renew(self) -> None:
        try:
            self._context = self._build()
        except UnusableCertificate as error:
            log.warning(
                "%s: changed files cannot be used, the former ones stay in use: %s",
                self._place,
                error,
                extra={"event": "certificate_not_renewed"},
            )
            return
        log.info("%s: the changed files are in use", self._place, extra={"event": "certificate_renewed"})

    def _now(self) -> _Stamp:
        """What tells one state of the files from another; a file that cannot be looked at has none."""
        return tuple(_stamp_of(path) for path in self._files)


def _stamp_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def receiver_tls(tls: TlsSettings) -> Renewed:
    """Of the receiver. Raises UnusableCertificate."""
    return Renewed("scp.tls", tls, partial(server_context, tls))


_couriers: dict[TlsSettings | HttpsSettings, Renewed] = {}
_one_at_a_time = threading.Lock()


def courier_tls(tls: TlsSettings) -> Renewed:
    """Of every association that is requested with these files. Raises UnusableCertificate, and tries again then."""
    with _one_at_a_time:  # a second thread must find what the first one read, and not a half of what came after
        if tls not in _couriers:
            _couriers[tls] = Renewed(f"tls with {tls.certificate}", tls, partial(client_context, tls))
        return _couriers[tls]


def https_tls(tls: HttpsSettings) -> Renewed:
    """Of every request to a DICOMweb server with these files. Raises UnusableCertificate, and tries again then."""
    with _one_at_a_time:
        if tls not in _couriers:
            _couriers[tls] = Renewed("tls of a DICOMweb destination", tls, partial(https_context, tls))
        return _couriers[tls]


def page_tls(tls: WebTlsSettings) -> ssl.SSLContext:
    """Of the page: its server keeps one context, which takes the present files for each handshake."""
    renewed = Renewed("web.tls", tls, partial(page_context, tls))
    context = renewed()

    def take(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = renewed()

    context.sni_callback = take  # called for every ClientHello, also for one that names no server
    return context
