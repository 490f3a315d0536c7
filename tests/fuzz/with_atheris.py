"""The same targets for libFuzzer: `python -m tests.fuzz.with_atheris TARGET [FOLDER] [options of libFuzzer]`.

atheris is no part of `make setup`: its wheel has 35 MB, and where there is none for a machine it wants Clang. Whoever
wants it installs it beside the project, `.venv/bin/pip install atheris`.
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Run until something is found, or as the options say (`-max_total_time=600`)."""
    atheris = import_module("atheris")  # no part of the developer's environment

    with atheris.instrument_imports(include=["config", "models", "node", "storage"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[sys.argv[1]]
    with tempfile.TemporaryDirectory() as folder, target.open() as run:
        for number, seed in enumerate(target.seeds()):
            Path(folder, str(number)).write_bytes(seed)

        def one(data: bytes) -> None:
            try:
                run(data)
            except target.ends:
                return

        limits = [
            f"-max_len={target.max_bytes}",
            "-timeout=5",
            f"-rss_limit_mb={1024 + (2 * target.memory_bytes >> 20)}",
        ]
        atheris.Setup([sys.argv[0], *limits, *sys.argv[2:], folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
