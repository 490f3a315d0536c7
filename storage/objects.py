"""The one edge to an S3-compatible object store: bytes under keys. Only this file loads obstore, where it is used.

Keys are names of the spool. Every request has a bound in time that grows with its bytes, so that a server which hangs
looks like one that is away: both are `ObjectsUnavailable`, and so is a refusal, because none of them says of an object
that it is not there.
"""

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from config.spool import SpoolSettings
from storage.errors import ObjectsUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, S3Config, S3Credential

REQUEST_S: Final = 4.0  # a scanner waits for the answer to a C-STORE meanwhile
BYTES_IN_TIME: Final = 4 << 20  # what a request moves in that time; larger ones get more
_METADATA_SERVICE: Final = "169.254.169.254"  # where a machine of a cloud is asked for the credentials of its role
# What is found in the text of an error, of the server or of obstore, and what it means; the first that is there counts.
_SIGNS: Final = (
    (_METADATA_SERVICE, "was given no credentials: neither spool.credentials_file nor the environment has any"),
    ("<Code>RequestTimeTooSkewed<", "says the clock of this host is wrong"),
    ("<Code>AccessDenied<", "forbids this to these credentials"),
    ("<Code>NoSuchBucket<", "has no such bucket"),
    ("<Code>AuthorizationHeaderMalformed<", "needs another spool.region"),
    ("incorrectly configured region", "needs another spool.region"),
    ("<Code>SlowDown<", "has too much to do"),
    ("<Code>XMinioStorageFull<", "is full"),
    ("<Code>QuotaExceeded<", "is full: its quota is used up"),
    ("507 Insufficient Storage", "is full"),
    ("NotValidForName", "shows a certificate of another name"),
    ("InvalidCertificate( Expired", "shows a certificate that has expired"),
    ("InvalidCertificate(", "shows a certificate that is not trusted"),
    ("InvalidContentType", "does not speak TLS"),
    ('"dns error"', "has a name that is not found"),
    ("ConnectionRefused", "takes no connection"),
    ("kind: Timeout", "does not answer in time"),
    ("response body error", "breaks its answer off"),
    ("Server returned non-2xx status code: 5", "answers with an error of its own"),
)
_LISTED_AT_ONCE: Final = 1000
_CREDENTIALS_S: Final = 5.0  # for so long they are not looked at again
_ASKED_BEFORE_END_S: Final = 300.0  # so long before their end obstore asks for new ones
_Credentials = tuple[str, str]  # access key id and secret


@dataclass(frozen=True)
class Found:
    """An object as the store tells of it; changed_at: by the server's clock."""

    key: str
    size_bytes: int
    changed_at: datetime


class Objects:
    """One prefix of one bucket. `connect` opens it with a bound for each request, in seconds; threads may share it."""

    def __init__(self, connect: Callable[[float], "ObjectStore"]) -> None:
        self._connect = connect
        self._opened: dict[float, ObjectStore] = {}

    def put(self, key: str, data: bytes) -> None:
        """Keep these bytes, in the place of any before; on return the server has them, checked by their SHA-256."""
        with self._request(len(data)) as store:
            store.put(key, data, use_multipart=False)

    def put_new(self, key: str, data: bytes) -> bool:
        """Keep these bytes where there are none under the key; False where there are."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        with self._request(len(data)) as store:
            try:
                store.put(key, data, use_multipart=False, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def get(self, key: str, start: int, length: int) -> bytes | None:
        """So many bytes from `start` on, which must be there; None where there is no object."""
        with self._request(length) as store, suppress(FileNotFoundError):
            data = bytes(store.get_range(key, start=start, length=length))
            if not data:
                raise ObjectsUnavailable("the object store sent nothing of an object")
            return data
        return None

    def head(self, key: str) -> Found | None:
        """An object without its bytes; None where there is none."""
        with self._request(0) as store, suppress(FileNotFoundError):
            found = store.head(key)
            return Found(key, found["size"], found["last_modified"])
        return None

    def list(self, folder: str) -> Iterator[Found]:
        """What lies below a folder of keys, in the order of the keys where the server has one."""
        with self._request(0) as store:
            for page in store.list(folder, chunk_size=_LISTED_AT_ONCE):
                yield from (Found(one["path"], one["size"], one["last_modified"]) for one in page)

    def folders(self, folder: str) -> Sequence[str]:
        """The folders directly below one."""
        with self._request(0) as store:
            return sorted(store.list_with_delimiter(folder)["common_prefixes"])

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        with self._request(0) as store:
            for key in keys:
                with suppress(FileNotFoundError):
                    store.delete(key)

    @contextmanager
    def _request(self, size_bytes: int) -> Iterator["ObjectStore"]:
        limit_s = REQUEST_S
        while size_bytes * REQUEST_S > limit_s * BYTES_IN_TIME:
            limit_s *= 2
        try:
            store = self._opened.get(limit_s)
            if store is None:
                store = self._opened[limit_s] = self._connect(limit_s)
            yield store
        except ObjectsUnavailable:
            raise
        except Exception as error:
            self._opened = {}  # credentials may have been renewed
            # Not the text of the error: it quotes what the server sent.
            raise ObjectsUnavailable(f"the object store {_answer(error)}") from error


def _answer(error: Exception) -> str:
    """What is wrong, in words of our own: the text of an error is only looked through, because the server wrote it."""
    text = " ".join(str(error).split())
    for sign, words in _SIGNS:
        if sign in text:
            return words
    name = type(error).__name__
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return "refuses these credentials"
    if isinstance(error, FileNotFoundError):
        return "has no such bucket"
    if name == "GenericError":
        return "does not answer, or with an error"
    return f"cannot be used ({name})"


def open_objects(settings: SpoolSettings, credentials: Callable[[], _Credentials | None]) -> Objects:
    """The bucket of the settings. `credentials`: access key id and secret, or None where the environment counts.

    It is asked for them whenever a connection is made, and every few seconds of its use; what it raises must be
    ObjectsUnavailable.
    """
    return Objects(lambda limit_s: _connect(settings, credentials, limit_s))


def _connect(settings: SpoolSettings, credentials: Callable[[], _Credentials | None], limit_s: float) -> "ObjectStore":
    try:
        from obstore.store import S3Store  # noqa: PLC0415
    except ImportError:
        raise ObjectsUnavailable("the object store needs the package obstore: install syncect[objects]") from None
    first = credentials()
    # What is written here must not depend on a variable of the environment that was meant for another program.
    config: S3Config = {
        "region": settings.region,
        "checksum_algorithm": "SHA256",
        "unsigned_payload": False,
        "skip_signature": False,
    }
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    client: ClientConfig = {
        "allow_http": settings.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=2),
        "timeout": timedelta(seconds=limit_s),
    }
    if settings.ca is not None:
        client["root_certificate"] = _certificates(settings.ca)
    if client["allow_http"]:  # a proxy that the environment names would read the images: this one is never asked
        client["proxy_url"], client["proxy_excludes"] = settings.endpoint, urlsplit(settings.endpoint).hostname or ""
    return S3Store(
        settings.bucket,
        prefix=settings.prefix or None,
        config=config,
        client_options=client,
        credential_provider=_renewed(first, credentials) if first is not None else None,
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=limit_s),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
        },
    )


def _renewed(first: _Credentials, credentials: Callable[[], _Credentials | None]) -> "Callable[[], S3Credential]":
    """What obstore asks for the credentials; a token of the environment belongs to others and is left out."""
    latest = first

    def provide() -> "S3Credential":
        nonlocal latest
        with suppress(ObjectsUnavailable):  # half written; the server refuses the last ones when they are not good
            latest = credentials() or latest
        name, secret = latest
        expires_at = datetime.now(UTC) + timedelta(seconds=_ASKED_BEFORE_END_S + _CREDENTIALS_S)
        return {"access_key_id": name, "secret_access_key": secret, "token": None, "expires_at": expires_at}

    return provide


def _certificates(ca: Path) -> bytes:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
        return ca.read_bytes()
    except OSError as error:  # of which those of OpenSSL are a kind
        why = "it is no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
        raise ObjectsUnavailable(f"spool.ca {ca} cannot be used: {why}") from None
