"""What a site puts into files, and what the node writes: settings, bundle cards, certificates, log and audit."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from config.load import ConfigError, load_settings
from config.settings import Settings
from models.bundle import BundleError, read_card, shipped_folder
from node.operate.listing import named_states
from node.operate.settings_view import shown_settings
from node.operate.texts import NotUnderstood, moment_before, one_line, tidy_reason
from node.ops.audit_message import audit_message
from node.ops.certificates import validity
from node.ops.log_lines import IDS as LOG_IDS
from node.ops.log_lines import console_text, line_formatter
from node.ops.log_reader import LogReader, Wanted
from node.receive.admission import safe_title
from storage.audit import AuditEntry
from storage.errors import UnusableUrl
from tests.fuzz.dicom_targets import of_file
from tests.fuzz.hostile import AE_TITLES, TEXTS, UIDS
from tests.fuzz.target import KB, MB, Run, Source, Target, always

_SHORT: Final = tuple(text for text in TEXTS if len(text) <= 5000)

# -- settings ---------------------------------------------------------------------------------------------------------

_KEYS: Final = sorted(
    {key for one in Settings.model_fields.values() for key in getattr(one.annotation, "model_fields", ())}
)
_TOML_WORDS: Final = tuple(
    word.encode()
    for word in (
        *(
            "[scp]",
            "[[destination]]",
            "[[eligibility.rules]]",
            "[scp.tls]",
            "[completion.count_from]",
            "\n",
            " = ",
            '"',
            "'",
        ),
        *(
            "true",
            "false",
            "nan",
            "inf",
            "1e400",
            "0x1",
            "-1",
            "[]",
            "{}",
            "2026-11-27",
            '"""',
            "'''",
            "\\u0000",
            "\\n",
        ),
        *(
            '_env_file = "x"',
            "_cli_parse_args = true",
            '_secrets_dir = "/"',
            "AskedPeer",
            "str",
            "model_config",
            "self",
        ),
        *("[" * 500, "{a=" * 300, "a." * 300, "9" * 5000, '"a\\nb" = 1', '"\\u202e" = 1', "count_from", "values"),
        *(f"{key} = " for key in _KEYS),
    )
)


def _settings_seeds() -> list[bytes]:
    plain = files("config").joinpath("default.toml").read_text(encoding="utf-8")
    bare = "\n".join(line for line in plain.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    full = "\n".join(line.removeprefix("# ").removeprefix("#") if "=" in line else line for line in plain.splitlines())
    odd = [
        f"[{section}]\n{key} = {json.dumps(text)}\n" for text in _SHORT[:40] for section, key in (("scp", "ae_title"),)
    ]
    peers = (
        '[[scp.allowed_peers]]\nae_title = "A"\nhost = "10.0.0.0/8"\n[[destination]]\nname = "a"\nae_title = "B"\n'
        'host = "h"\ncompanions = ["report"]\n[completion]\ncount_from = {ae_title = "C", host = "::1"}\n'
        '[[eligibility.rules]]\nkeyword = "KVP"\nop = "at_least"\nvalues = ["80"]\nreason = "r"\n'
        '[alerts]\nwebhook = "https://a:b@host/x"\n[node]\ntimezone = "Europe/Berlin"\ndata_dir = "d"\n'
    )
    return [plain.encode(), bare.encode(), full.encode(), peers.encode(), *(one.encode() for one in odd)]


def _load(path: Path) -> None:
    try:
        settings = load_settings(path)
    except ConfigError as error:
        for mistake in error.mistakes:
            assert mistake.isprintable(), f"not one printable line: {mistake!r}"
            assert mistake.startswith((str(path), "environment")), f"it names no place: {mistake!r}"
        raise
    shown = settings.model_dump(mode="json")
    assert Settings.model_validate(shown) == settings, "what is shown means something else: "
    with suppress(UnusableUrl):
        json.dumps(shown_settings(settings))
    assert load_settings(path) == settings, "read again it is something else: "


@contextmanager
def _without_variables() -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SYNCECT_")}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _settings() -> Iterator[Run]:
    with _without_variables(), of_file(_load)() as run:
        yield run


# -- bundle cards -----------------------------------------------------------------------------------------------------


def _read_card(path: Path) -> None:
    card = read_card(path.parent)
    assert len(card.digest) == 64, "no digest: "
    json.dumps(card.to_mapping())


@contextmanager
def _cards() -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle.json"

        def run(data: bytes) -> None:
            path.write_bytes(data)
            _read_card(path)

        yield run


def _card_seeds() -> list[bytes]:
    found = [
        json.loads((folder / "bundle.json").read_text())
        for folder in sorted(shipped_folder().iterdir())
        if folder.is_dir()
    ]
    small = [{**card, "metrics": card["metrics"][:1], "trust": {}, "training": {}} for card in found]
    return [json.dumps(card).encode() for card in small]


_JSON_WORDS: Final = (
    *(
        b"null",
        b"true",
        b"NaN",
        b"Infinity",
        b"-1",
        b"1e999",
        b"0.5",
        b"[]",
        b"{}",
        b'""',
        b"[" * 2000,
        b'{"a":' * 1500,
    ),
    *(
        b"9" * 5000,
        b'"\\ud800"',
        b'"\\u0000"',
        b'"envelope"',
        b'"hu_window"',
        b'"matrix"',
        b'"context_mm"',
        b'"name"',
        b",",
    ),
)

# -- certificates and revocation lists --------------------------------------------------------------------------------


def _pem_seeds() -> list[bytes]:
    """A self-signed certificate and a revocation list of it, made once with OpenSSL and kept in the corpus."""
    return [path.read_bytes() for path in sorted((Path(__file__).with_name("corpus")).glob("*.pem"))]


def _validity(path: Path) -> None:
    for begins, ends in validity(path):
        assert begins.tzinfo is UTC, "a moment without a zone: "
        assert ends.tzinfo is UTC, "a moment without a zone: "


# -- the log, the audit trail, and what people type -------------------------------------------------------------------


def _log_line(data: bytes) -> None:
    source = Source(data)
    console, machine = line_formatter("console", "receive"), line_formatter("json", "receive")
    record = logging.LogRecord(
        "node", logging.WARNING, "f", 1, "%s said %s", (source.text(_SHORT), source.text(_SHORT)), None
    )
    for key in LOG_IDS:
        if source.flag():
            record.__dict__[key] = source.text(_SHORT)
    if source.flag():
        error = OSError(5, source.text(_SHORT))
        record.exc_info = (type(error), error, None)
    lines = console.format(record), machine.format(record)
    for line in lines:
        assert len(line.splitlines()) == 1, f"more than one line: {line!r}"
        assert line.isprintable(), f"a terminal obeys it: {line!r}"
    assert json.loads(lines[1])["role"] == "receive", "no line for programs: "


def _read_log(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        Path(folder, "receive-1.jsonl").write_bytes(data)
        ids = {"case": frozenset({"12"}), "job": frozenset({"5"}), "series_uid": frozenset({"1.2.3"})}
        reader = LogReader(Path(folder), Wanted(ids, "1.2.3"))
        for line in reader.read():
            text = console_text(line)
            assert text.isprintable() or line.get("traceback"), f"a terminal obeys it: {text!r}"
        reader.close()


def _log_seeds() -> list[bytes]:
    line = {
        "time": "2026-11-27T10:00:00.000Z",
        "level": "INFO",
        "role": "work",
        "event": "e",
        "message": "m",
        "case": "12",
    }
    lines = [
        line,
        {**line, "job": 5},
        {**line, "series_uid": "1.2.3"},
        {**line, "series_uid": "1.9"},
        {**line, "time": None},
    ]
    return ["".join(json.dumps(one) + "\n" for one in lines).encode(), b'{"case": "12"}\n' + b"[" * 3000 + b"]}\n"]


def _audit(data: bytes) -> None:
    source = Source(data)
    who, address, action, outcome, case, detail = (source.text(_SHORT) for _ in range(6))
    entry = AuditEntry(datetime(2026, 11, 27, tzinfo=UTC), who, address, action, outcome, case, detail)
    root = ElementTree.fromstring(audit_message(entry, source.text(UIDS), source.text(AE_TITLES)))
    assert root.tag == "AuditMessage", "no audit message: "


def _typed(data: bytes) -> None:
    source = Source(data)
    text = source.text(_SHORT)
    assert one_line(text).isprintable(), f"not one printable line: {one_line(text)!r}"
    title = safe_title(text)
    assert title.isprintable(), f"no safe title: {title!r}"
    assert len(title.encode("ascii")) <= 16, f"no safe title: {title!r}"
    for understand in (tidy_reason, lambda one: named_states([one]), _moment):
        assert (said := _said(understand, text)).isprintable(), f"not one printable line: {said!r}"


def _said(understand: Callable[[str], object], text: str) -> str:
    """What a person is told who typed this, "" where it has a meaning."""
    try:
        understand(text)
    except NotUnderstood as error:
        return str(error)
    return ""


def _moment(text: str) -> None:
    moment_before(text, datetime(2026, 11, 27, tzinfo=UTC), UTC)


def _noise() -> list[bytes]:
    from random import Random

    chance = Random(17)
    return [bytes((kind, index)) + chance.randbytes(60) for kind in range(8) for index in range(0, 250, 10)]


SITE: Final = (
    Target(
        "settings", _settings, _settings_seeds, (ConfigError,), _TOML_WORDS, memory_bytes=32 * MB, examples=60, share=2
    ),
    Target("card", _cards, _card_seeds, (BundleError,), _JSON_WORDS),
    Target("certificate", of_file(_validity), _pem_seeds, (ValueError,), max_bytes=32 * KB),
    Target("log_line", always(_log_line), _noise, max_bytes=4 * KB),
    Target("log_file", always(_read_log), _log_seeds, (), _JSON_WORDS),
    Target("audit", always(_audit), _noise, max_bytes=4 * KB),
    Target("typed", always(_typed), _noise, max_bytes=4 * KB),
)
