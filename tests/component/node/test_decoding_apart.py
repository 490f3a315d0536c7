"""with_decoded_digests: one image has one digest, and no decoder runs in the process that asks for it."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless

from node.dicom.decoding_apart import with_decoded_digests
from node.dicom.headers import SliceHeader, read_header
from node.dicom.sandbox import SANDBOX, DecoderStopped
from tests.builders import make_series


def undecoded(paths: list[Path]) -> list[SliceHeader]:
    return [read_header(path, decode=False) for path in paths]


@pytest.fixture
def compressed(tmp_path: Path) -> list[Path]:
    """A series of which every second slice is compressed."""
    paths = make_series(tmp_path, slices=4)
    for path in paths[::2]:
        ds = dcmread(path)
        ds.compress(JPEGLSLossless, generate_instance_uid=False)
        ds.save_as(path)
    return paths


def test_the_digests_are_those_of_the_decoded_content(tmp_path: Path, compressed: list[Path]) -> None:
    plain = [read_header(path).content_sha256 for path in make_series(tmp_path / "plain", slices=4)]
    headers = undecoded(compressed)
    assert [one.content_sha256 == other for one, other in zip(headers, plain, strict=True)] == [False, True] * 2
    assert [header.content_sha256 for header in with_decoded_digests(headers)] == plain


def test_nothing_is_decoded_in_this_process(compressed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", lambda *_, **__: pytest.fail("decoded"))
    with_decoded_digests(undecoded(compressed))


def test_no_process_is_started_for_uncompressed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SANDBOX, "decode", lambda *_, **__: pytest.fail("asked"))
    headers = undecoded(make_series(tmp_path, slices=2))
    assert with_decoded_digests(headers) == headers


def test_after_an_image_that_takes_too_much_none_is_decoded(
    compressed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop(*_: object, **__: object) -> None:
        asked.append(1)
        raise DecoderStopped("takes more than 5 s to be decoded", "time")

    monkeypatch.setattr(SANDBOX, "decode", stop)
    headers = undecoded(compressed)
    assert with_decoded_digests(headers) == headers
    assert len(asked) == 1


def test_a_series_that_takes_too_much_counts_by_its_bytes_as_a_whole(
    compressed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its digests would tell how busy the machine was."""
    monkeypatch.setattr("node.dicom.decoding_apart.MAX_TOTAL_S", 1e-6)
    monkeypatch.setattr("node.dicom.decoding_apart.MAX_TOTAL_S_PER_SLICE", 0.0)
    headers = undecoded(compressed)
    assert with_decoded_digests(headers) == headers


def test_a_file_that_is_gone_counts_by_its_bytes(compressed: list[Path]) -> None:
    headers = undecoded(compressed)
    compressed[0].unlink()
    answered = with_decoded_digests(headers)
    assert answered[0] == headers[0]
    assert answered[2] != headers[2]
