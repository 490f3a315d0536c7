"""Checks of the settings file and of the TLS files that it names."""

import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from config.load import ConfigError
from config.settings import Settings
from node.bootstrap.roles import eligibility_policy
from node.operate.doctor.report import Line, Lines, Mark, of_finding
from node.ops.certificates import PAGE_KEY, check_page_tls, check_tls, tls_of, validity
from node.ops.checks import check_hosts
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


def certificates(settings: Settings) -> Lines:
    """Of every place with TLS: the files can be read, fit each other, are in time, and only this user reads the key."""
    now, places = datetime.now(UTC), 0
    for key, private_key, signed, findings in _places(settings, now):
        places += 1
        remedy = f"put valid files where {key} says; the node takes them into use by itself"
        yield from (of_finding("certificates", one, remedy) for one in findings)
        yield from _key_mode(key, private_key)
        if not findings:
            ends = min(end for path in signed for _, end in validity(path))
            found = f"{key}: key and certificate match, valid for {(ends - now).days} days (until {ends:%Y-%m-%d})"
            yield Line("certificates", Mark.OK, found)
    if not places:
        yield Line("certificates", Mark.SKIP, "no TLS is set: what is sent can be read on the network")


def _places(settings: Settings, now: datetime) -> Iterator[tuple[str, Path, Sequence[Path], list[Finding]]]:
    """Each key of the settings with its private key, its certificates, and what is wrong with them."""
    for key, tls in tls_of(settings):
        signed = (tls.certificate, tls.ca) if tls.crl is None else (tls.certificate, tls.ca, tls.crl)
        yield key, tls.private_key, signed, list(check_tls(key, tls, now))
    if settings.web.enabled and settings.web.tls is not None:
        page = settings.web.tls
        yield PAGE_KEY, page.private_key, (page.certificate,), list(check_page_tls(settings.web, now))


def _key_mode(key: str, path: Path) -> Lines:
    try:
        status = path.stat()
    except OSError:
        return  # told already
    # A key that root keeps is read by the group of the node: so a hospital may install it, and Kubernetes mounts it.
    mode, may = status.st_mode, stat.S_IRGRP if status.st_uid == 0 else 0
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~may:
        found = f"{key}.private_key: other users of this machine can read or change {path} (mode {mode & 0o777:o})"
        yield Line("certificates", Mark.WARN, found, f"`chmod 600 {path}`, owned by the user of the node")
