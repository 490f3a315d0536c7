"""The one boundary between the commands and their caller: every exception becomes a sentence and an exit code."""

import gc
import hashlib
import io
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from config.load import ConfigError
from models.errors import ModelsError
from models.process import settle_process
from node.cli.console import INTERRUPTED, Exit, say, system_answer, write
from node.errors import Misconfigured, NodeError, Refused
from node.ops.modes import close_to_others
from storage.errors import IllegalTransition, MoveRefused, NotFound, StorageError, UnusableUrl, WrongStore

TRACEBACK_VARIABLE = "SYNCECT_TRACEBACK"
_WIDTH_VARIABLE = "COLUMNS"
_NARROWEST_OUTPUT = 20  # columns of text; in fewer no list can be read

_EXIT_CODES: tuple[tuple[tuple[type[Exception], ...], Exit], ...] = (
    ((ConfigError, Misconfigured, UnusableUrl, WrongStore), Exit.USAGE),
    ((NotFound,), Exit.NOT_FOUND),
    ((Refused, IllegalTransition, MoveRefused), Exit.REFUSED),
    ((NodeError, StorageError, ModelsError), Exit.ERROR),
)


def run() -> int:
    """Run the command that was typed; returns its exit code and raises nothing."""
    close_to_others()
    _open_closed_streams()
    _take_any_text()
    _forget_useless_width()
    _silence_libraries()
    settle_process()
    try:
        code = _run_command()
        sys.stdout.flush()
    except BrokenPipeError:  # the program behind the pipe has read enough, as `head` does
        _write_no_more()
        return Exit.OK
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code = _told(error)
    if code == INTERRUPTED:
        say("syncect: interrupted")
    try:
        sys.stdout.flush()
    except OSError:
        _write_no_more()
    return code


def _run_command() -> int:
    from node.cli.commands import command

    if not gc.isenabled():
        gc.freeze()  # what is loaded now stays until the end
        gc.enable()
    try:
        command()
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # which Typer and Rich make an exit of
            raise left.__context__ from None
        return left.code if isinstance(left.code, int) else Exit.ERROR if left.code else Exit.OK
    return Exit.OK


def _open_closed_streams() -> None:
    """A stream that the caller closed leads nowhere, and no file of ours is opened under its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _take_any_text() -> None:
    """A character that the terminal's encoding lacks is shown as `?` and ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _forget_useless_width() -> None:
    """A width in the environment that is no number, or too small to read anything in, counts as none."""
    width = os.environ.get(_WIDTH_VARIABLE, "")
    if not (width.isascii() and width.isdecimal() and int(width) >= _NARROWEST_OUTPUT):
        os.environ.pop(_WIDTH_VARIABLE, None)


def _silence_libraries() -> None:
    """A library's warning is for developers, and one of pydicom's quotes values that stand in a patient's file."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _write_no_more() -> None:
    """What is still kept for standard output goes nowhere, so that Python does not complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _told(error: Exception) -> int:
    for kinds, code in _EXIT_CODES:
        if isinstance(error, kinds):
            for line in str(error).splitlines():
                say(f"syncect: {line}")
            return code
    if os.environ.get(TRACEBACK_VARIABLE):
        write(traceback.format_exc(), sys.stderr)
    elif (system := _of_the_system(error)) is not None:
        say(f"syncect: {system_answer(system)}")
    else:
        say(f"syncect: this is a fault in syncect: an unexpected {type(error).__name__}. {_kept(error)}")
    return Exit.ERROR


def _of_the_system(error: BaseException | None) -> OSError | None:
    """What the operating system refused, or None; pydicom raises an OSError of its own from it, without its number."""
    while isinstance(error, OSError) and not error.strerror:
        error = error.__cause__
    return error if isinstance(error, OSError) else None


def _kept(error: Exception) -> str:
    """Where the traceback is. The same fault has the same file, so that a process that starts again makes no second.

    Only this user may read it: the message of an exception can hold what stands in a DICOM file.
    """
    frames = "".join(traceback.format_exception(error))
    digest = hashlib.sha256(frames.encode(errors="replace")).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"syncect-error-{os.getuid()}-{digest}.txt"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(frames)
    except FileExistsError:
        pass
    except OSError as failure:
        return f"Its details could not be kept ({failure.strerror}); {TRACEBACK_VARIABLE}=1 prints them"
    return f"Its details are in {path}; please report them"
