"""Lines of the documents that a test cannot run as they stand, why, and what is run instead of each.

A line that stands in no page any more fails a test. `make WORD` needs no row: `make -n WORD` is run in its place.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instead:
    """Why a line is not run, and the shell command that is run in its place."""

    why: str
    command: str


_SAME_PACKAGES = 'for package in {}; do grep -qw -- "$package" "$REPOSITORY/.ci/run" || exit 1; done'

NOT_RUN: dict[str, Instead] = {
    "sudo apt-get install --yes orthanc dcmtk": Instead(
        "it changes the machine", _SAME_PACKAGES.format("orthanc dcmtk")
    ),
    **{
        f".venv/bin/syncect --config node.toml {word}": Instead(
            "its exit code is the state of this machine: 0 ok, 1 degraded, 2 down",
            f".venv/bin/syncect --config node.toml {word}; [ $? -le 2 ]",
        )
        for word in ("status", "doctor")
    },
    ".venv/bin/syncect --config node.toml users add anna --role admin": Instead(
        "it asks for a password on a terminal",
        "echo a-long-password | .venv/bin/syncect --config node.toml users add anna --role admin --password-stdin",
    ),
    "syncect qa run": Instead(
        "it needs a running node and its phantom takes a minute; without a destination for it, it is refused",
        "syncect qa run; [ $? -eq 4 ]",
    ),
    "syncect qa plot --out trend.svg": Instead(
        "it needs a run; without one there is nothing to draw", "syncect qa plot --out trend.svg; [ $? -eq 3 ]"
    ),
    **{
        f"syncect archive {words}": Instead(
            "it needs an object store and starts a Ray cluster", f"syncect archive {words.partition(' ')[0]} --help"
        )
        for words in (
            "run index.parquet --out s3://research/synthetic",
            "ls --out s3://research/synthetic --end FAILED",
            "ls --out s3://research/synthetic --end HELD",
            "release 1.2.826.0.1.3680043.2.1125.7 --out s3://research/synthetic "
            '--reason "the implant is outside of the target"',
            "run index.parquet --out s3://research/synthetic --retry-failed",
        )
    },
    ".venv/bin/python -m tests.fuzz --again settings runs/fuzz/settings-032488c424": Instead(
        "its file is the input of a finding", "grep -q -- --again $REPOSITORY/tests/fuzz/__main__.py"
    ),
    ".venv/bin/pip install atheris": Instead(
        "it needs a package index", "grep -q 'pip install atheris' $REPOSITORY/tests/fuzz/with_atheris.py"
    ),
    ".venv/bin/python -m tests.fuzz.with_atheris identity -max_total_time=600": Instead(
        "the program comes from the line before", "grep -q max_total_time $REPOSITORY/tests/fuzz/with_atheris.py"
    ),
    ".venv/bin/pip install pre-commit": Instead(
        "it needs a package index", "test -f $REPOSITORY/.pre-commit-config.yaml"
    ),
    ".venv/bin/pre-commit install --hook-type pre-commit --hook-type pre-push": Instead(
        "the program comes from the line before", "grep -q pre-push $REPOSITORY/.pre-commit-config.yaml"
    ),
}
