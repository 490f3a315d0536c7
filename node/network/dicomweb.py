"""The services of a DICOMweb server (PS3.18), by dicomweb-client over bounded HTTP; it knows no store and no policy.

Of dicomweb-client only single pages of a search are asked for: it would encode what it stores anew, and follow a search
for as long as a server has answers.
"""

import io
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any

from dicomweb_client import DICOMwebClient

from config.destinations import DicomwebSettings
from node.network.bounded_http import MAX_ANSWER_BYTES, NoAnswer, Session
from node.network.no_association import Outcome
from node.network.requestor import Timeouts


@dataclass(frozen=True)
class Answer:
    """The answer to a store request: HTTP status and body."""

    status: int
    body: bytes


class Service:
    """The services of one server; every method raises NoAnswer."""

    def __init__(self, server: DicomwebSettings, session: Session) -> None:
        self._server, self._session = server, session
        # Study and series may have UIDs of a scanner that break PS3.5 section 9.1.
        self._client = DICOMwebClient(server.url, session=session, permissive_uid=True)
        self._client.set_http_retry_params(retry=False)

    def store(self, instances: Sequence[bytes]) -> Answer:
        """Send DICOM files as they are (STOW-RS, PS3.18 10.5); the answer has a status of 2xx, 400 or 409."""
        boundary = secrets.token_hex(16)
        parts = [
            b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (boundary.encode(), one) for one in instances
        ]
        body = io.BytesIO(b"".join([*parts, b"--%b--\r\n" % boundary.encode()]))  # read and sent piece by piece
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        }
        answer = self._session.post(f"{self._server.url}/studies", data=body, headers=headers)
        return Answer(answer.status_code, answer.content)

    def search_instances(self, study_uid: str, series_uid: str, limit: int, offset: int) -> list[dict[str, Any]]:
        """A page of what the server lists of a series (QIDO-RS, PS3.18 10.6), as DICOM JSON."""
        with self._unreadable():
            return _datasets(self._client.search_for_instances(study_uid, series_uid, limit=limit, offset=offset))

    def search_studies(self, filters: Mapping[str, str], limit: int, offset: int) -> list[dict[str, Any]]:
        """A page of the studies that the server lists, as DICOM JSON."""
        with self._unreadable():
            found = self._client.search_for_studies(limit=limit, offset=offset, search_filters=dict(filters))
            return _datasets(found)

    def retrieve_instance(self, study_uid: str, series_uid: str, instance_uid: str) -> bytes:
        """One instance as a DICOM file, in the transfer syntax in which the server has it (WADO-RS, PS3.18 10.4)."""
        headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        path = f"studies/{study_uid}/series/{series_uid}/instances/{instance_uid}"
        answer = self._session.get(f"{self._server.url}/{path}", headers=headers)
        if (part := _only_part(answer.headers.get("Content-Type", ""), answer.content)) is None:
            words = "answers a retrieval with something that is not one DICOM file"
            raise NoAnswer(Outcome.UNCLEAR, f"{self._server.url} {words}", reached=True)
        return part

    @contextmanager
    def _unreadable(self) -> Iterator[None]:
        """What dicomweb-client raises over an answer is an answer that cannot be read, such as a page for people."""
        try:
            yield
        except NoAnswer:
            raise
        except Exception:
            words = "answers a query with something that is no DICOM JSON; is the path of url right?"
            raise NoAnswer(Outcome.UNCLEAR, f"{self._server.url} {words}", reached=True) from None


@contextmanager
def connect(server: DicomwebSettings, timeouts: Timeouts, *, answer_bytes: int = MAX_ANSWER_BYTES) -> Iterator[Service]:
    """The services of a server, whose connections are closed on leaving; raises NoAnswer, and so do all its methods.

    answer_bytes: bound of the body of an answer.
    """
    with Session(server, timeouts, answer_bytes=answer_bytes) as session:
        yield Service(server, session)


def _datasets(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise TypeError("not a list of data sets")
    return found


def _only_part(content_type: str, body: bytes) -> bytes | None:
    """The content of a multipart message (RFC 2046 section 5.1) with one part; None where it is anything else."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if not boundary or header.get_content_type() != "multipart/related" or not boundary.isascii():
        return None
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if len(pieces) != 3 or not pieces[2].startswith(b"--"):
        return None
    _, end_of_headers, content = pieces[1].partition(b"\r\n\r\n")
    return content if end_of_headers else None
