"""What torch sees of the devices of this machine, as JSON on standard output; run as a program, and loading no model.

It is a process of its own because torch takes seconds to load, and a broken driver can hang or end whoever asks it.
"""

import gc
import json
import sys
from typing import Any


def devices() -> dict[str, Any]:
    """torch's version, what `auto` would choose, and each GPU with its name and memory in bytes."""
    import torch  # noqa: PLC0415 - when the program has said that there is no garbage to look for

    usable = torch.cuda.is_available()
    gpus = []
    for number in range(torch.cuda.device_count() if usable else 0):
        free, total = torch.cuda.mem_get_info(number)
        gpus.append({"name": torch.cuda.get_device_name(number), "free_bytes": free, "total_bytes": total})
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "auto": "cuda" if usable else "cpu",
        "gpus": gpus,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    gc.disable()
    json.dump(devices(), sys.stdout)
    gc.freeze()
