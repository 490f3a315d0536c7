"""Everything that a person did or looked at on the page goes into the store, into the log and, if wished, to a syslog.

A deed that the store cannot keep is refused: StoreUnavailable is raised to whoever was about to do it. The syslog never
delays a deed and never refuses one.
"""

import logging
from typing import Final

from node.ops.audit_message import audit_message
from node.ops.audit_syslog import Syslog
from storage.audit import AuditEntry, AuditStore

log = logging.getLogger(__name__)

LOGIN: Final = "login"
LOGOUT: Final = "logout"
SEE_PATIENT: Final = "see patient"
SEE_IMAGES: Final = "see images"
FIND_PATIENT: Final = "find patient"
OK: Final = "ok"
REFUSED: Final = "refused"
LOCKED: Final = "locked"
FAILED: Final = "failed"


class Auditor:
    """Notes deeds. syslog: None where none is in the settings; node_name: how messages call this node."""

    def __init__(self, store: AuditStore, node_name: str, syslog: Syslog | None) -> None:
        self._store, self._node_name, self._syslog = store, node_name, syslog

    def note(self, entry: AuditEntry, study_uid: str = "") -> None:
        """Keep a deed. study_uid: of the study that it concerns, for the message. Raises StoreUnavailable."""
        self._store.record(entry)
        log.log(
            logging.INFO if entry.outcome == OK else logging.WARNING,
            "audit: %s by %s from %s%s: %s",
            entry.action,
            entry.who or "nobody",
            entry.address,
            f" on {entry.case_id}" if entry.case_id else "",
            entry.outcome,
            extra={"event": "audit", "case": entry.case_id},
        )
        if self._syslog is not None:
            self._syslog.offer(audit_message(entry, study_uid, self._node_name), entry.at)

    def close(self) -> None:
        """End what sends messages."""
        if self._syslog is not None:
            self._syslog.close()
