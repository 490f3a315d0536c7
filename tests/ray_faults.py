"""Actors with faults, for the tests of the Ray executor; SoftwareVersions of a job's options says which."""

import os
import signal
from typing import Any

from models.translator import DeviceFault
from node.errors import Permanent
from node.translate.carried import CarriedJobs, Parcel
from node.translate.ray_executor import Actor

DIES, FAULTY_DEVICE, REFUSED, CRASHES = "dies", "faulty device", "refused", "crashes"


class FaultyJobs(CarriedJobs):
    """The device fails until one slice at a time is computed."""

    def run(self, ticket: str, ask: Any, options: Any, parcel: Parcel) -> Any:
        fault = options.equipment.software_version
        if fault == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == FAULTY_DEVICE and not ask.careful:
            raise DeviceFault("the device ran out of memory: 2 GiB")
        if fault == REFUSED:
            raise Permanent("the scan is too large")
        if fault == CRASHES:
            raise ValueError("Test^Person")
        return super().run(ticket, ask, options, parcel)


class FaultyActor(Actor):
    def __init__(self) -> None:
        super().__init__()
        self._jobs = FaultyJobs()
