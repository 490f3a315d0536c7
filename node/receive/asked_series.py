"""A storage SCP for series that somebody asked for, and for nothing else; it needs no store.

It stands on the receiver's server: the same bounds, the same TLS, the same check of what a peer says it sends.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom import evt

from config.settings import ScpSettings
from node.dicom.identity import InstanceIdentity, part10_head
from node.errors import UnreadableInstance
from node.network import server, status
from node.network.contexts import supported_contexts
from node.network.dimse_guard import MessageLimits, answer_of
from node.network.server import Admission
from node.receive.admission import Places, Session, session_of
from node.receive.receiver import (
    MAX_DATASET_BYTES,
    MAX_IN_FLIGHT_BYTES,
    QUIET_TIMEOUT_S,
    UIDS_DIFFER,
    identified,
    tell_refusal,
)

log = logging.getLogger(__name__)

STOP_GRACE_S: Final = 2.0
_NOT_KNOWN: Final = InstanceIdentity("", "", "", "")

Keep = Callable[[str, str, bytes], None]
"""Gets the key of a series, a SOP Instance UID (digits and dots) and a Part 10 file; when it returns, that is kept."""


@contextmanager
def listening(
    settings: ScpSettings, port_key: str, wanted: Mapping[tuple[str, str], str], keep: Keep
) -> Iterator[None]:
    """Take instances of `wanted` series, by StudyInstanceUID and SeriesInstanceUID, as long as the block lasts.

    An instance is answered with 0x0000 after `keep` has returned. Raises Misconfigured where nobody can listen.
    """
    places = Places(settings)

    def ended(session: Session, _released: bool) -> None:
        session.turn.give_up()
        places.leave(session)

    listens = server.listen(
        settings,
        settings.port,
        port_key,
        contexts=supported_contexts(),
        handlers=[
            *places.handlers(),
            (evt.EVT_C_ECHO, lambda _event: status.SUCCESS),
            (evt.EVT_C_STORE, partial(_store, places, wanted, keep)),
        ],
        services=[],
        admission=Admission(places.admit, ended, places.is_known_host),
        limits=MessageLimits(MAX_DATASET_BYTES, MAX_IN_FLIGHT_BYTES, lambda: MAX_IN_FLIGHT_BYTES),
        quiet_s=QUIET_TIMEOUT_S,
    )
    thread = threading.Thread(target=listens.serve_forever, args=(0.05,), name="asked-series", daemon=True)
    thread.start()
    try:
        yield
    finally:
        listens.stop(STOP_GRACE_S)
        thread.join()


def _store(places: Places, wanted: Mapping[tuple[str, str], str], keep: Keep, event: Any) -> Dataset:
    """Answer one C-STORE; whatever goes wrong becomes a failure status."""
    session, identity = session_of(event), None
    try:
        code, comment = event.request.DataSet.refusal or (status.SUCCESS, "")
        if code == status.SUCCESS:
            data = event.encoded_dataset(include_meta=False)
            identity = identified(event.request, data, event.context.transfer_syntax)
            code, comment = _take(identity, data, event, wanted, keep)
    except UnreadableInstance as error:
        code, comment = status.CANNOT_UNDERSTAND, str(error)
    except Exception as error:  # of whatever keeps it, or of bytes that nobody foresaw
        log.error("an instance could not be kept: %s", type(error).__name__, extra={"event": "instance_not_stored"})
        code, comment = status.OUT_OF_RESOURCES, "the instance could not be stored; try again"
    finally:
        event.request.DataSet.release()
    if code == status.SUCCESS:
        session.stored += 1
        places.progressed(session)
    else:
        tell_refusal(session, identity or _NOT_KNOWN, code, comment)
    return answer_of(code, comment)


def _take(
    identity: InstanceIdentity | None, data: bytes, event: Any, wanted: Mapping[tuple[str, str], str], keep: Keep
) -> tuple[int, str]:
    if identity is None:
        return status.DATASET_DOES_NOT_MATCH, UIDS_DIFFER
    key = wanted.get((identity.study_uid, identity.series_uid))
    if key is None:
        return status.NOT_AUTHORIZED, "nobody asked for this series"
    head = part10_head(identity.sop_class_uid, identity.sop_instance_uid, str(event.context.transfer_syntax))
    keep(key, identity.sop_instance_uid, head + data)
    return status.SUCCESS, ""
