"""Serves the page over HTTP until the process is told to stop."""

import socket
import ssl
import threading
from typing import Final

import uvicorn

from config.settings import WebSettings
from node.beats import IDLE_LIMIT_S, Beating
from node.bootstrap.store import Node
from node.errors import Misconfigured
from node.network.renewal import page_tls
from node.web.app import make_app
from node.web.caller import Networks
from node.web.connections import MOST_ANSWERED, bounded

_STOP_WITHIN_S: Final = 3
_STORE_WITHIN_S: Final = 5.0  # a browser gives up after 8 s, Prometheus after 10 s


class Page:
    """The status page at the address of the settings."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return self._settings.address

    def run(self, node: Node, stop: threading.Event, beat: Beating) -> None:
        """Answer until `stop` is set. Raises Misconfigured where the port or the certificate cannot be used."""
        context = self._context()
        listener = self._listen()
        node.database.wait_at_most(_STORE_WITHIN_S)
        app = make_app(node, lambda: beat("", "answering", 0, 0, IDLE_LIMIT_S))
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                access_log=False,  # addresses hold what was looked for, such as the ID of a patient
                log_config=None,
                server_header=False,
                proxy_headers=False,  # who stands before it is judged by the settings
                http=bounded(Networks(self._settings.trusted_proxies)),
                ws="none",  # no page has one, and its library would log addresses
                limit_concurrency=MOST_ANSWERED,
                timeout_graceful_shutdown=_STOP_WITHIN_S,
                ssl_context_factory=None if context is None else lambda _config, _default: context,
            )
        )
        # In a thread of its own uvicorn leaves the signals to `stop`.
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page")
        thread.start()
        try:
            while thread.is_alive() and not stop.wait(0.5):
                continue
        finally:
            server.should_exit = True
            thread.join()
            listener.close()

    def _context(self) -> ssl.SSLContext | None:
        tls = self._settings.tls
        return None if tls is None else page_tls(tls)

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._settings.host, self._settings.port))
        except OSError as error:
            listener.close()
            raise Misconfigured(
                f"the status page cannot listen on {self._settings.host} port {self._settings.port}: {error.strerror}"
            ) from error
        return listener
