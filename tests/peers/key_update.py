"""A storage SCU over TLS by OpenSSL's own client, which can renew its keys while it waits for an answer."""

import select
import subprocess
import threading

from tests.peers.certificates import Certificates
from tests.peers.raw_peer import (
    ASSOCIATE_AC,
    COMMAND,
    CT,
    CT_CONTEXT,
    DATA,
    LAST,
    associate_rq,
    encode_command,
    p_data,
)

_RENEW_KEYS = b"K\n"  # a command of `openssl s_client`, which sends a KeyUpdate message (RFC 8446 section 4.6.3)
_C_STORE = encode_command(CT.encode(), 0x0001, 1, [(0x0700, b"\0\0"), (0x0800, b"\0\0"), (0x1000, b"1.2.3\0")])


def is_answered_after_a_key_update(
    port: int, certificates: Certificates, handling: threading.Event, within_s: float
) -> bool:
    """Send a C-STORE request, renew the keys once it is being handled, and wait for the answer."""
    certificate, key, ca = map(str, certificates.files())
    where = ["-connect", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-CAfile", ca]
    with subprocess.Popen(
        ["openssl", "s_client", "-quiet", "-tls1_3", *where],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            client.stdin.write(associate_rq())
            _read_until(client, ASSOCIATE_AC, 5)
            client.stdin.write(p_data(CT_CONTEXT, COMMAND | LAST, _C_STORE) + p_data(CT_CONTEXT, LAST, b"own"))
            assert handling.wait(60)
            client.stdin.write(_RENEW_KEYS)
            return _read_until(client, DATA, within_s)
        finally:
            client.kill()


def _read_until(client: "subprocess.Popen[bytes]", kind: int, within_s: float) -> bool:
    """Whether a PDU of this type comes in time; what the program itself says is skipped."""
    assert client.stdout is not None
    while select.select([client.stdout], [], [], within_s)[0]:
        said = client.stdout.read(1 << 16)
        if not said:
            return False
        if bytes((kind, 0, 0)) in said:
            return True
    return False
