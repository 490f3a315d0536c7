"""What the gate and the login share: the settings, who may enter, the cookies and the tokens of forms."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from config.settings import WebSettings
from node.ops.audit import LOGIN, OK, Auditor
from node.web.access import Person
from node.web.attempts import Attempts
from node.web.caller import Caller, Said, Trust
from node.web.passwords import Comparer
from storage.audit import AuditEntry
from storage.roles import Role
from storage.users import UserStore

SESSION_COOKIE: Final = "syncect-session"
FORM_COOKIE: Final = "syncect-login"
_MAX_KNOWN: Final = 1000


class Entrance:
    """Who may enter. One for each process of the page; its secret ends with the process."""

    def __init__(self, settings: WebSettings, users: UserStore, auditor: Auditor, now: Callable[[], datetime]) -> None:
        self.settings, self.users, self.auditor, self.now = settings, users, auditor, now
        self.trust = Trust(settings)
        self.attempts, self.comparer = Attempts(), Comparer()
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[tuple[str, str], datetime] = OrderedDict()  # who came by a proxy, and when last

    def person(self, caller: Caller, cookies: dict[str, str], *, extends: bool) -> Person | None:
        """Who asks; None where nobody is logged in. Raises Forged and StoreUnavailable."""
        if (said := caller.said()) is not None:
            return self._by_proxy(said, caller)
        token = cookies.get(cookie_name(SESSION_COOKIE, caller), "")
        if not token:
            return None
        found = self.users.session(
            digest(token),
            self.now(),
            idle_s=self.settings.session_idle_s,
            most_s=self.settings.session_s,
            extends=extends,
        )
        return None if found is None else Person(found.name, found.full_name, found.role, found.csrf)

    def is_without_users(self) -> bool:
        """Whether nobody at all could log in."""
        return not self.settings.user_header and not self.users.any()

    def token_for(self, purpose: str, value: str) -> str:
        """What a form must carry; only this process can make it."""
        return hmac.new(self._secret, f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()

    def _by_proxy(self, said: Said, caller: Caller) -> Person:
        user = self.users.find(said.name)
        role = said.role or (Role.VIEWER if user is None else user.role)
        self._note_first(said.name, caller.address)
        return Person(said.name, user.full_name if user else "", role, self.token_for("person", said.name))

    def _note_first(self, name: str, address: str) -> None:
        """A login at the proxy is seen here as the first request after a pause."""
        now, key = self.now(), (name, address)
        last = self._known.get(key)
        if last is None or now - last >= timedelta(seconds=self.settings.session_idle_s):
            self.auditor.note(AuditEntry(now, name, address, LOGIN, OK, detail="by the proxy"))
        self._known[key] = now
        self._known.move_to_end(key)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)


def cookie_name(name: str, caller: Caller) -> str:
    """Over TLS a name that a browser takes from no other path, no other name and no unencrypted page (RFC 6265bis)."""
    return f"__Host-{name}" if caller.is_secure else name


def digest(token: str) -> str:
    """What the store keeps of a session's token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
