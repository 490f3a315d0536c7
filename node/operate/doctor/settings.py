"""Checks of the settings file and of the TLS files that it names."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from config.load import ConfigError
from config.settings import Settings
from node.bootstrap.roles import eligibility_policy
from node.network.secret_file import is_open_to_others
from node.operate.doctor.report import Line, Lines, Mark, of_finding
from node.ops.certificates import PAGE_KEY, check_page_tls, check_tls, files_of, tls_of, validity
from node.ops.checks import check_dicomweb, check_hosts
from node.ops.findings import Finding


def settings_file(settings: Settings) -> Lines:
    """What the settings mean together: rules, destinations that are this node, names that cannot be looked up."""
    found = list(_meaning(settings))
    count = sum(one.is_mistake for one in found)
    state = Mark.FAIL if count else Mark.WARN if found else Mark.OK
    words = f"{count} mistakes, {len(found) - count} warnings"
    yield Line("settings", state, words, "`syncect config validate` prints them" if found else "")
    yield from (of_finding("settings", one, "correct it in the settings file, or in the environment") for one in found)


def _meaning(settings: Settings) -> Iterator[Finding]:
    try:
        eligibility_policy(settings)
    except ConfigError as error:
        yield from map(Finding, error.mistakes)
    yield from check_hosts(settings)
    yield from check_dicomweb(settings)


def certificates(settings: Settings) -> Lines:
    """Of every place with TLS: the files can be read, fit each other, are in time, and only this user reads the key."""
    now, places = datetime.now(UTC), 0
    for key, private_key, signed, findings in _places(settings, now):
        places += 1
        remedy = f"put valid files where {key} says; the node takes them into use by itself"
        yield from (of_finding("certificates", one, remedy) for one in findings)
        if private_key is not None:
            yield from _key_mode(key, private_key)
        if not findings and signed:
            ends = min(end for path in signed for _, end in validity(path))
            what = "key and certificate match" if private_key is not None else "ca"
            found = f"{key}: {what}, valid for {(ends - now).days} days (until {ends:%Y-%m-%d})"
            yield Line("certificates", Mark.OK, found)
    if not places:
        yield Line("certificates", Mark.SKIP, "no TLS is set: what is sent can be read on the network")


def _places(settings: Settings, now: datetime) -> Iterator[tuple[str, Path | None, Sequence[Path], list[Finding]]]:
    """Each key of the settings with its private key, its certificates, and what is wrong with them."""
    for key, tls in tls_of(settings):
        files = files_of(tls)
        signed = [path for name, path in files.items() if name != "private_key"]
        yield key, files.get("private_key"), signed, list(check_tls(key, tls, now))
    if settings.web.enabled and settings.web.tls is not None:
        page = settings.web.tls
        yield PAGE_KEY, page.private_key, (page.certificate,), list(check_page_tls(settings.web, now))


def _key_mode(key: str, path: Path) -> Lines:
    try:
        status = path.stat()
    except OSError:
        return  # told already
    if is_open_to_others(status):
        mode = status.st_mode & 0o777
        found = f"{key}.private_key: other users of this machine can read or change {path} (mode {mode:o})"
        yield Line("certificates", Mark.WARN, found, f"`chmod 600 {path}`, owned by the user of the node")
