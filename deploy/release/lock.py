"""`make constraints`: names every package that this project installs, at one version and with the hashes of its files.

constraints.txt holds all but torch. torch.txt names torch by its version only, because a hospital takes the wheel that
suits its processor or GPU from where it wants. torch-cuda.txt is the wheel of PyPI with all that it needs, with hashes.
Versions stay as they are where they can; `--upgrade` takes the newest.
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKED: Final = "constraints.txt"
TORCH: Final = "torch.txt"
CUDA: Final = "torch-cuda.txt"
_OF_TORCH: Final = re.compile(r"torch|triton|nvidia-.*|cuda-.*")
_PIN: Final = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
_HEADERS: Final = {
    LOCKED: "# Every version that `make setup` and CI install, torch apart, with the hashes of its files.\n"
    "# `make constraints` writes this after a change of pyproject.toml; then run all tests.\n",
    CUDA: "# torch for NVIDIA GPUs as PyPI has it, with the hashes of its files: `make setup TORCH=torch-cuda.txt`.\n"
    "# `make constraints` writes this; the version of torch stands in torch.txt.\n",
}


def main() -> None:
    """Write both files anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "compiled.txt"  # uv keeps the versions that it finds in the file that it writes
        compiled.write_text("".join((ROOT / name).read_text(encoding="utf-8") for name in (LOCKED, CUDA)))
        command = ["uv", "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--python-version", "3.11"]
        options = ["--generate-hashes", "--no-header", "--no-annotate", "--quiet", "--constraint", TORCH]
        subprocess.run([*command, *options, *upgrade, "--output-file", str(compiled)], cwd=ROOT, check=True)
        for name, text in split(compiled.read_text(encoding="utf-8")).items():
            (ROOT / name).write_text(text, encoding="utf-8")


def split(compiled: str) -> Mapping[str, str]:
    """The text of each file, from what uv wrote."""
    texts = dict(_HEADERS)
    for entry in re.split(r"\n(?=\S)", compiled.strip()):
        if found := _PIN.match(entry):
            # Locked for Linux and the Pythons of pyproject.toml alone; elsewhere a developer gets the same versions.
            shorter = re.sub(r"(;|and) python_full_version < '3\.14' and (?=sys_platform)", r"\1 ", entry, count=1)
            shorter = re.sub(r" (;|and) +sys_platform == 'linux'(?= \\)", "", shorter)
            texts[CUDA if _OF_TORCH.fullmatch(found[1]) else LOCKED] += shorter.rstrip() + "\n"
    return texts


def pins(text: str) -> dict[str, str]:
    """Version by name, in small letters, of each package that such a file names; entries go over several lines."""
    return {found[1].lower(): found[2] for line in text.splitlines() if (found := _PIN.match(line))}


def unhashed(text: str) -> list[str]:
    """The names of the packages that a file names without the hash of a file."""
    entries = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip())
    return [found[1] for entry in entries if (found := _PIN.match(entry)) and "--hash=sha256:" not in entry]


if __name__ == "__main__":
    main()
