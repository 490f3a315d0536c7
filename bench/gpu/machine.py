"""The facts that figures of the GPU check belong to: card, driver, versions, revision."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

PACKAGES = ("torch", "numpy", "scipy", "safetensors")
OPTIONAL = ("accelerate", "tensorboard", "triton")
ROOT = Path(__file__).parents[2]


def about(device: str) -> dict[str, object]:
    """Plain JSON values about this run, before anything is measured."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["bench/gpu.sh", *sys.argv[1:]]),
        "dry_run": device != "cuda",
        "revision": revision(),
        "machine": {
            "device": device_name(device),
            **(_card() if device == "cuda" else {}),
            "cpu_cores": os.cpu_count(),
            "cpu_threads_of_torch": torch.get_num_threads(),
            "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
            "python": platform.python_version(),
            "versions": versions(),
        },
        "torch_defaults": {
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "cudnn.deterministic": torch.backends.cudnn.deterministic,
            "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            "PYTORCH_CUDA_ALLOC_CONF": os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        },
    }


def device_name(device: str) -> str:
    """Name of the card, or "cpu"."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def file_name(device: str) -> str:
    """gpu-<card>-<time in UTC>.json, in letters, digits, - and _."""
    card = re.sub(r"[^A-Za-z0-9]+", "-", device_name(device)).strip("-")
    return f"gpu-{card}-{datetime.now(UTC):%Y-%m-%dT%H%M%S}.json"


def versions() -> dict[str, str | None]:
    """Installed versions; None for what is not there and not needed."""
    found: dict[str, str | None] = {}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found | {"torch_build": torch.__version__}


def revision() -> str:
    """BENCH_REVISION, else what git says of this tree, else "unknown": a bare copy has no history."""
    if given := os.environ.get("BENCH_REVISION"):
        return given
    if not (ROOT / ".git").exists():
        return "unknown"
    return _output("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown"


def _card() -> dict[str, object]:
    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "capability": f"{card.major}.{card.minor}",
        "multiprocessors": card.multi_processor_count,
        "memory_gb": card.total_memory / 1e9,
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


def _output(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip().splitlines()[0] if run.returncode == 0 and run.stdout.strip() else ""
