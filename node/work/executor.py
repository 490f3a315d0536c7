"""Where a job is computed: the port, and the executor that computes in this process; neither knows the store."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from models import Translator
from node.pipeline.proof import load_readers
from node.pipeline.run import JobOptions, JobResult, run_job

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total); what it raises ends the job."""


class Executor(Protocol):
    """Turns the files of one series into the files of a derived series."""

    bundle: str
    """Label of the bundle it works with, as it stands in the job's row."""
    description: str
    """Method, device and precision in words."""

    def run(self, paths: Sequence[Path], options: JobOptions, out_dir: Path, progress: Progress) -> JobResult:
        """Run one job; raises NodeError, or what `progress` raises."""


class LocalExecutor:
    """Computes in the calling thread with one translator that is loaded once."""

    def __init__(self, bundle: str, translator: Translator) -> None:
        self.bundle, self.description = bundle, translator.description
        self._translator = translator
        load_readers()

    def run(self, paths: Sequence[Path], options: JobOptions, out_dir: Path, progress: Progress) -> JobResult:
        """Run one job."""
        return run_job(paths, self._translator, options, out_dir, progress=progress)
