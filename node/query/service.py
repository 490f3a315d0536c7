"""The Query/Retrieve service classes as the server offers them: contexts, messages, and who answers (PS3.4 C.5)."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext

from node.dicom.constants import CT_IMAGE_STORAGE
from node.network import status
from node.network.dimse_guard import answer_of
from node.network.services import Message, Service
from node.query.find import answers, looker
from node.query.index import Index
from node.query.retrieve import Responses, Retriever

PATIENT_FIND, PATIENT_MOVE, PATIENT_GET = (f"1.2.840.10008.5.1.4.1.2.1.{number}" for number in (1, 2, 3))
STUDY_FIND, STUDY_MOVE, STUDY_GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
_PATIENT_ROOT: Final = frozenset({PATIENT_FIND, PATIENT_MOVE, PATIENT_GET})
_SYNTAXES: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_ASKED: Final = {
    Message.C_FIND_RQ: (PATIENT_FIND, STUDY_FIND),
    Message.C_MOVE_RQ: (PATIENT_MOVE, STUDY_MOVE),
    Message.C_GET_RQ: (PATIENT_GET, STUDY_GET),
}
MESSAGES: Final = {
    **{uid: frozenset({what, Message.C_CANCEL_RQ}) for what, uids in _ASKED.items() for uid in uids},
    CT_IMAGE_STORAGE: frozenset({Message.C_STORE_RSP}),
}


def query_contexts() -> list[PresentationContext]:
    """The contexts of the service; a peer that asks by C-GET proposes to be the SCP of the images."""
    images = build_context(CT_IMAGE_STORAGE, list(_SYNTAXES))
    images.scu_role, images.scp_role = False, True
    return [*(build_context(uid, list(_SYNTAXES)) for uids in _ASKED.values() for uid in uids), images]


def query_service(index: Index, retriever: Retriever, progressed: Callable[[Any], None]) -> Service:
    """The service. progressed: told the session of an association that asks, so that it keeps its place."""
    return Service(
        contexts=query_contexts(),
        messages=MESSAGES,
        handlers=[
            (evt.EVT_C_FIND, partial(_find, index, retriever.ae_title, progressed)),
            (evt.EVT_REQUESTED, _requested),
        ],
        operations={C_MOVE: partial(_move, retriever, progressed), C_GET: partial(_get, retriever, progressed)},
    )


def _requested(event: Any) -> None:
    """Leave the images out, before contexts are negotiated, for a peer that would send some instead of getting them."""
    association = event.assoc
    role = association.requestor.role_selection.get(CT_IMAGE_STORAGE)
    if role is None or not role.scp_role:
        supported = association.acceptor.supported_contexts
        association.acceptor.supported_contexts = [one for one in supported if one.abstract_syntax != CT_IMAGE_STORAGE]


def _find(
    index: Index, ae_title: str, progressed: Callable[[Any], None], event: Any
) -> Iterator[tuple[int | Dataset, Dataset | None]]:
    session = event.assoc.dul.session
    progressed(session)
    try:
        identifier: Dataset = event.identifier
    except Exception:  # pydicom raises whatever it stumbles over
        yield answer_of(status.CANNOT_UNDERSTAND, "the identifier is no data set"), None
        return
    look, is_patient_root = looker(lambda: bool(event.is_cancelled)), _is_patient_root(event.context.abstract_syntax)
    for answer in answers(index, identifier, look, patient_root=is_patient_root, ae_title=ae_title):
        progressed(session)
        yield answer


def _move(
    retriever: Retriever,
    progressed: Callable[[Any], None],
    association: Association,
    context: PresentationContext,
    request: C_MOVE,
) -> None:
    responses = _responses(progressed, association, context, request)
    destination = str(request.MoveDestination or "").strip()
    retriever.move(responses, destination, patient_root=_is_patient_root(context.abstract_syntax))


def _get(
    retriever: Retriever,
    progressed: Callable[[Any], None],
    association: Association,
    context: PresentationContext,
    request: C_GET,
) -> None:
    responses = _responses(progressed, association, context, request)
    retriever.get(responses, association, patient_root=_is_patient_root(context.abstract_syntax))


def _responses(
    progressed: Callable[[Any], None], association: Association, context: PresentationContext, request: C_MOVE | C_GET
) -> Responses:
    upper_layer: Any = association.dul
    session = upper_layer.session
    progressed(session)
    return Responses(association, context, request, session.calling_ae, partial(progressed, session))


def _is_patient_root(abstract_syntax: UID | None) -> bool:
    return str(abstract_syntax) in _PATIENT_ROOT
