"""A peer of the allow-list, in a process of its own: it associates, sends C-ECHO and releases again and again.

A process of its own, because the times that it measures must not contain what the receiver's and the attackers' threads
take from each other in one interpreter.
"""

import json
import math
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context

VERIFICATION = "1.2.840.10008.1.1"
TIMEOUT_S = 5.0  # a peer waits longer in practice; the tests ask for less


@dataclass(frozen=True)
class Experience:
    """What the known peer saw: seconds of every echo, why echoes failed, and the status of its C-STORE."""

    echoes_s: list[float]
    failures: list[str]
    store_status: int | None

    @property
    def worst_s(self) -> float:
        return max(self.echoes_s)

    @property
    def p99_s(self) -> float:
        return sorted(self.echoes_s)[math.ceil(0.99 * len(self.echoes_s)) - 1]


def watch(port: int, ct: Path, *, echoes: int, every_s: float, tls: dict[str, str] | None = None) -> Experience:
    """Run the known peer until it has sent its echoes and then one CT instance."""
    options = {"port": port, "ct": str(ct), "echoes": echoes, "every_s": every_s, "tls": tls}
    done = subprocess.run(
        [sys.executable, "-m", "tests.peers.known_peer", json.dumps(options)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60 + echoes * (every_s + 2 * TIMEOUT_S),
    )
    return Experience(**json.loads(done.stdout))


def _main(options: dict[str, Any]) -> None:
    ae = AE(ae_title="SIMULATOR")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = TIMEOUT_S
    arguments: dict[str, Any] = {
        "contexts": [build_context(VERIFICATION), build_context(CTImageStorage, ExplicitVRLittleEndian)],
        "ae_title": "SYNCECT",
    }
    if (tls := options["tls"]) is not None:
        context = ssl.create_default_context(cafile=tls["ca"])
        context.load_cert_chain(tls["certificate"], tls["private_key"])
        arguments["tls_args"] = (context, "127.0.0.1")

    seconds, failures = [], []
    due = time.monotonic()
    for _ in range(options["echoes"]):
        time.sleep(max(due - time.monotonic(), 0.0))
        due += options["every_s"]
        begun = time.perf_counter()
        link = ae.associate("127.0.0.1", options["port"], **arguments)
        if link.is_established:
            status = link.send_c_echo().get("Status")
            link.release()
            if status != 0x0000:
                failures.append(f"no answer to C-ECHO: {status}")
        else:
            failures.append("rejected" if link.is_rejected else "no association")
        seconds.append(time.perf_counter() - begun)

    link = ae.associate("127.0.0.1", options["port"], **arguments)
    stored = link.send_c_store(dcmread(options["ct"])).get("Status") if link.is_established else None
    if link.is_established:
        link.release()
    print(json.dumps({"echoes_s": seconds, "failures": failures, "store_status": stored}))  # noqa: T201


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
