"""The sandbox: an image that crashes a decoder, takes all memory or never ends costs itself and nothing else."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from node.dicom import sandboxed
from node.dicom.pixels import MAX_FRAGMENTS
from node.dicom.sandbox import SANDBOX, DecoderStopped, Sandbox
from node.dicom.volume import read_volume
from node.errors import UnreadableInstance
from tests.bombs import JPEG_2000, RLE, jpeg_2000, jpeg_ls, rle, rle_bomb, with_frame, with_pixel_data

SIDE = 64
VALUES = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) % 4096
PLUGINS: dict[str, str] = {JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg", RLELossless: "pydicom"}


def encoded(syntax: str) -> bytes:
    return bytes(
        get_encoder(syntax).encode(
            VALUES,
            rows=SIDE,
            columns=SIDE,
            samples_per_pixel=1,
            bits_allocated=16,
            bits_stored=12,
            pixel_representation=0,
            number_of_frames=1,
            photometric_interpretation="MONOCHROME2",
        )
    )


def decode(sandbox: Sandbox, syntax: str = JPEGLSLossless, frame: bytes | None = None) -> np.ndarray:
    frame = encoded(syntax) if frame is None else frame
    return sandbox.decode(frame, syntax, PLUGINS[syntax], rows=SIDE, columns=SIDE, bits_stored=12, signed=False)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.close()


@pytest.mark.parametrize("syntax", PLUGINS)
def test_one_child_serves_every_decoder(sandbox: Sandbox, syntax: str) -> None:
    for _ in range(3):
        np.testing.assert_array_equal(decode(sandbox, syntax), VALUES)
    assert len(sandbox.pids()) == 1


def test_a_child_that_somebody_kills_costs_no_image(sandbox: Sandbox) -> None:
    decode(sandbox)
    (pid,) = sandbox.pids()
    os.kill(pid, signal.SIGKILL)
    np.testing.assert_array_equal(decode(sandbox), VALUES)
    assert sandbox.pids() != [pid]


def test_an_image_that_takes_too_long_is_stopped_and_the_next_is_decoded(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(sandbox)
    os.kill(sandbox.pids()[0], signal.SIGSTOP)
    monkeypatch.setattr("node.dicom.sandbox.WALL_FACTOR", 0.01)
    with pytest.raises(DecoderStopped, match="takes more than 0 s") as caught:
        decode(sandbox)
    assert caught.value.reason == "time"
    monkeypatch.undo()
    np.testing.assert_array_equal(decode(sandbox), VALUES)


def test_an_image_that_burns_cpu_time_is_stopped(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segment expands to a gigabyte in Python, which no wall clock has to notice."""
    monkeypatch.setattr("node.dicom.sandbox.CPU_S", 0.1)
    monkeypatch.setattr("node.dicom.sandbox.WALL_FACTOR", 600)
    monkeypatch.setattr("node.dicom.sandbox.MEMORY_BYTES", 16 << 30)
    with pytest.raises(DecoderStopped, match="of CPU time") as caught:
        decode(sandbox, RLELossless, rle(b"\x00\x01" * (40 << 20)))
    assert caught.value.reason == "time"


def test_an_image_that_takes_too_much_memory_is_stopped(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.sandbox.MEMORY_BYTES", 16 << 20)
    with pytest.raises(DecoderStopped, match=r"needs more than 16 MiB .* too much for 64 x 64 pixels") as caught:
        decode(sandbox, RLELossless, rle(rle_bomb(2 << 20)))
    assert caught.value.reason == "memory"
    np.testing.assert_array_equal(decode(sandbox), VALUES)


def test_an_image_that_ends_two_children_is_said_to(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.sandbox.sys.executable", "/bin/false")
    with pytest.raises(DecoderStopped, match="end the decoder") as caught:
        decode(sandbox)
    assert caught.value.reason == "signal"


def test_a_child_is_replaced_before_it_is_worn_out(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.sandbox.CALLS", 2)
    seen = set()
    for _ in range(4):
        decode(sandbox)
        seen |= set(sandbox.pids())
    assert len(seen) == 2


def talking(tmp_path: Path, what: str) -> Path:
    """The sandboxed process, whose decoders do something first."""
    path = tmp_path / "sandboxed.py"
    ours = f"import os, time\nasked = _answer\ndef _answer(*given):\n    {what}\n    return asked(*given)\n\n"
    path.write_text(Path(sandboxed.__file__).read_text().replace('if __name__ == "__main__"', f"{ours}if True"))
    return path


def test_what_a_decoder_prints_is_no_answer(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.sandbox.SCRIPT", talking(tmp_path, "os.write(1, b'1\\n')"))
    np.testing.assert_array_equal(decode(sandbox), VALUES)


def test_a_process_that_a_decoder_leaves_behind_ends_with_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the pipe of the answers, and whoever reads there would wait as long as it lives."""
    script = talking(tmp_path, "os.fork() or time.sleep(60); os._exit(0)")
    monkeypatch.setattr("node.dicom.sandbox.SCRIPT", script)
    monkeypatch.setattr("node.dicom.sandbox.WALL_FACTOR", 0.5)
    begin_s = time.monotonic()
    with pytest.raises(DecoderStopped, match="takes more than 1 s"):
        decode(sandbox)
    assert time.monotonic() - begin_s < 20


def test_a_process_that_leaves_the_group_of_its_child_keeps_nobody_waiting(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = talking(tmp_path, "os.fork() or (os.setsid(), time.sleep(15), os._exit(0)); time.sleep(60)")
    monkeypatch.setattr("node.dicom.sandbox.SCRIPT", script)
    monkeypatch.setattr("node.dicom.sandbox.WALL_FACTOR", 0.5)
    begin_s = time.monotonic()
    with pytest.raises(DecoderStopped):
        decode(sandbox)
    assert time.monotonic() - begin_s < 10


PARENT = """
import sys
from pathlib import Path
from node.dicom import sandbox
sandbox.SCRIPT = Path(sys.argv[1])
child = sandbox._Child()
sandbox.SANDBOX._idle.append(child)
print(child.pid, flush=True)
sys.stdin.readline()
sandbox.SANDBOX.decode(b"x", "1.2.840.10008.1.2.4.80", "pyjpegls", rows=8, columns=8, bits_stored=12, signed=False)
"""


def test_a_child_that_sleeps_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = talking(tmp_path, "os.kill(os.getppid(), 9); time.sleep(60)")
    command = [sys.executable, "-c", PARENT, str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.stdin.close()
        ended = select.poll()
        ended.register(child, select.POLLIN)
        assert ended.poll(10_000)
        os.close(child)


def test_images_of_one_series_share_a_budget(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.sandbox.SCRIPT", talking(tmp_path, "time.sleep(0.6)"))
    begin_s = time.monotonic()
    with sandbox.budget(total_s=60, slow_s=1):
        np.testing.assert_array_equal(decode(sandbox), VALUES)
        with pytest.raises(DecoderStopped, match="and the slices before it together take too much time"):
            decode(sandbox)
        with pytest.raises(DecoderStopped, match="together"):
            decode(sandbox)
        assert sandbox.pids() == []  # no child was started for it
    assert time.monotonic() - begin_s < 10
    np.testing.assert_array_equal(decode(sandbox), VALUES)  # the next series has a new one


def test_images_that_are_quick_do_not_use_up_what_slow_ones_may_take(sandbox: Sandbox) -> None:
    decode(sandbox)
    with sandbox.budget(total_s=60, slow_s=0.4):
        for _ in range(200):
            decode(sandbox)


PROBE = """
import runpy, socket, sys
sys.argv = [{path!r}]
child = runpy.run_path({path!r})
child["serve"](sys.stdin.buffer, sys.stdout.buffer)
for attempt in (lambda: socket.socket(), lambda: open("/etc/passwd"), lambda: open("/tmp/x", "w")):
    try:
        attempt()
    except OSError as error:
        print(error.errno)
"""


def test_a_child_opens_neither_socket_nor_file_and_has_no_environment(sandbox: Sandbox) -> None:
    answer = subprocess.run(
        [sys.executable, "-I", "-c", PROBE.format(path=sandboxed.__file__)],
        stdin=subprocess.DEVNULL,  # a pipe would hang up, and with it the child
        capture_output=True,
        check=True,
    )
    assert answer.stdout.split() == [b"ready", b"24", b"24", b"24"]  # EMFILE
    decode(sandbox)
    (pid,) = sandbox.pids()
    names = {line.split(b"=")[0] for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if line}
    assert b"HOME" not in names
    assert not any(name.startswith(b"SYNCECT") for name in names)


# -- what is refused before a decoder is called ----------------------------------------------------------------


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SANDBOX, "decode", lambda *_, **__: pytest.fail("a decoder was called"))


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("frame", "syntax", "said"),
    [
        (jpeg_2000(100, 32, 32), JPEG_2000, "100 components, and its header says 1 sample"),
        (jpeg_2000(16384, 32, 32), JPEG_2000, "16384 components"),
        (jpeg_2000(1, 4096, 4096), JPEG_2000, "4096 x 4096 pixels, and 32 x 32 in the header"),
        (jpeg_2000(100, 4096, 4096), JPEG_2000, "4096 x 4096 pixels, and 32 x 32 in the header"),
        (jpeg_2000(1, 32, 32, precision_bits=38), JPEG_2000, "38 bits per sample, and 16 in its header"),
        (jpeg_2000(1, 32, 32, subsampling=2), JPEG_2000, "16 x 16 pixels, and 32 x 32 in the header"),
        (jpeg_2000(1, 32, 32, subsampling=255), JPEG_2000, "1 x 1 pixels, and 32 x 32 in the header"),
        (jpeg_ls(4, 32, 32), JPEGLSLossless, "4 components"),
        (jpeg_ls(1, 0, 0), JPEGLSLossless, "0 x 0 pixels, and 32 x 32"),
        (jpeg_ls(1, 32, 32)[:-10] + jpeg_ls(1, 4096, 4096)[2:], JPEGLSLossless, "more than once"),
        (rle(b"\x00\x01", count=15), RLE, "15 RLE segments, and its header says 2 bytes"),
        (rle(rle_bomb(1 << 20)), RLE, "an RLE segment of 1048576 bytes, and 32 x 32 pixels can take 2050"),
        (b"\x02", RLE, "2 bytes of RLE data"),
        (bytes([2, 0, 0, 0, 64, 0, 0, 0, 0xFF, 0xFF]) + bytes(100), RLE, "ascending"),
        (b"no codestream at all", JPEG_2000, "no codestream"),
    ],
)
def test_a_codestream_that_declares_other_than_the_header_is_refused_undecoded(
    tmp_path: Path, frame: bytes, syntax: str, said: str
) -> None:
    with pytest.raises(UnreadableInstance, match=rf"InstanceNumber 1 .*{said}"):
        read_volume(with_frame(tmp_path, frame, syntax, slices=2))


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encapsulate([bytes(8)] * (MAX_FRAGMENTS + 1), has_bot=False), f"more than {MAX_FRAGMENTS} fragments"),
        (b"\xfe\xff\x00\xe0" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20), "offset table"),
        (b"\xfe\xff\x00\xe0" + bytes(4) + b"\x01\x02\x03\x04" * 4, "fragments are damaged"),
    ],
)
def test_encapsulation_that_makes_no_sense_is_refused_undecoded(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(UnreadableInstance, match=said):
        read_volume(with_pixel_data(tmp_path, data + b"\xfe\xff\xdd\xe0\0\0\0\0", JPEG_2000, slices=2))


# -- what only decoding shows ----------------------------------------------------------------------------------


def test_an_rle_segment_that_expands_beyond_the_image_is_refused_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInstance, match="expands to 131072 bytes, and 32 x 32 pixels have 1024"):
        read_volume(with_frame(tmp_path, rle(rle_bomb(2048)), RLE, slices=2))


@pytest.mark.parametrize("syntax", PLUGINS)
def test_a_codestream_that_was_cut_is_an_error_of_its_slice(sandbox: Sandbox, syntax: str) -> None:
    """CharLS takes 4 s for the half of a 64 x 64 image, which is more than it gets."""
    frame = encoded(syntax)
    with pytest.raises(UnreadableInstance, match="decoded"):
        decode(sandbox, syntax, frame[: len(frame) // 2])
    np.testing.assert_array_equal(decode(sandbox, syntax), VALUES)
