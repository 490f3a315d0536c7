"""What is wrong with the settings of an object store is said of the settings, and not of the bucket."""

from pathlib import Path

import pytest

pytest.importorskip("obstore")

from config.spool import SpoolSettings
from storage.errors import ObjectsUnavailable
from storage.objects import open_objects

BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"no certificate", "it is no certificate in PEM form"),
        (BROKEN, "it is no certificate in PEM form"),
    ],
)
def test_a_ca_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    objects = open_objects(
        SpoolSettings(url="s3://bucket", endpoint="https://127.0.0.1:1", ca=ca), lambda: ("key", "secret")
    )
    with pytest.raises(ObjectsUnavailable) as refused:
        objects.head("store.json")
    assert str(refused.value) == f"spool.ca {ca} cannot be used: {why}"
