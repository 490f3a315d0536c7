"""Actors with faults, for the tests of the Ray executor; SoftwareVersions of a job's options says which."""

import os
import signal
from collections.abc import Callable
from typing import Any

from models.translator import DeviceFault
from node.errors import DamagedInstance, Permanent
from node.translate.carried import CarriedJobs, Parcel
from node.translate.ray_actor import Actor

DIES, FAULTY_DEVICE, REFUSED, CRASHES, CHANGED = "dies", "faulty device", "refused", "crashes", "changed on its way"


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
        if fault == CHANGED:
            raise DamagedInstance("a file is not as it was received")
        return super().run(ticket, ask, options, parcel)


class FaultyActor(Actor):
    def __init__(self, node_here: Callable[[], str]) -> None:
        super().__init__(node_here)
        self._jobs = FaultyJobs()
