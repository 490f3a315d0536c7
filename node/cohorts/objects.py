"""Bytes under keys below a URL: s3://bucket/prefix, or file:///folder for a mounted share. Loads obstore when used."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from node.errors import Misconfigured, Retryable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "file")
_ANSWER_S = 60.0  # for one request, which moves a shard at most


class Objects:
    """What lies below a URL. Credentials, region, endpoint and CA of S3 are those of its usual variables (AWS_...)."""

    def __init__(self, url: str) -> None:
        """Open the place; asks the server for nothing. Raises Misconfigured."""
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES or not rest:
            raise Misconfigured("a cohort in an object store is named by s3://BUCKET/PREFIX or file:///FOLDER")
        try:
            from obstore.store import from_url  # noqa: PLC0415
        except ImportError:
            raise Misconfigured("an object store needs the package obstore: install syncect[objects]") from None
        bounds: dict[str, object] = {
            "timeout": timedelta(seconds=_ANSWER_S),
            "connect_timeout": timedelta(seconds=5),
            "allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"),
        }
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            bounds["root_certificate"] = Path(bundle).read_bytes()
        retries = {"max_retries": 3, "retry_timeout": timedelta(seconds=_ANSWER_S)}
        try:
            if scheme == "file":
                self._store: ObjectStore = from_url(url, mkdir=True)
            else:
                self._store = from_url(url, client_options=bounds, retry_config=retries)  # type: ignore[call-overload]
        except Exception as error:  # obstore has an error of its own for each part of a URL
            raise Misconfigured(f"the URL names no object store ({type(error).__name__})") from error

    def put(self, key: str, data: bytes) -> None:
        """Keep these bytes, in the place of any before. Raises Retryable."""
        with _answers():
            self._store.put(key, data)

    def get(self, key: str, start: int, length: int) -> bytes | None:
        """So many bytes from `start` on, which must be there; None where there is no object. Raises Retryable."""
        with _answers(), suppress(FileNotFoundError):
            return bytes(self._store.get_range(key, start=start, length=length))
        return None

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where there is none. Raises Retryable."""
        with _answers(), suppress(FileNotFoundError):
            return self._store.head(key)["size"]
        return None


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, Retryable):
            raise
        # Not the text of the error: it quotes what the server sent.
        raise Retryable(
            f"the object store does not answer, or refuses ({type(error).__name__}); see that AWS_ENDPOINT_URL, "
            "AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are right. What was moved so far is kept"
        ) from error
