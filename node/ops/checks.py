"""Checks what the settings mean on this machine: hosts, ports, folders, database and bundle; it changes nothing."""

import errno
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import models
from config.destinations import DicomwebSettings
from config.settings import AnyDestination, AskedPeer, ModelSettings, ScpSettings, Settings
from config.spool import SpoolSettings
from config.syntax import network_of
from models import BundleCard
from models.errors import ModelsError
from node.network.secret_file import UnusableSecret, read_secret, read_token
from node.ops.findings import Finding, nearest_folder, warning
from node.ops.modes import loose
from node.ops.processes import running_processes
from storage.database import Database
from storage.errors import StorageError
from storage.schema import look_through

WITHOUT_DICOMWEB: Final = 'kind = "dicomweb" needs the extra package syncect[dicomweb], which is not installed'
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")

Found = Mapping[str, frozenset[str] | str]
"""The addresses of every host of the settings, or why it has none."""


# -- hosts -----------------------------------------------------------------------------------------------------


def check_hosts(settings: Settings) -> Iterator[Finding]:
    """Names that cannot be looked up, destinations that are this node, and two that are one peer."""
    keys = _hosts(settings)
    found = look_up(set(keys.values()))
    for key, host in keys.items():
        if isinstance(why := found[host], str):
            yield Finding(f"{key} = {host!r} cannot be looked up: {why}")
    yield from _own(settings, found)
    yield from _twice(settings, found)
    yield from _count_from(settings)


def _hosts(settings: Settings) -> dict[str, str]:
    """Every setting that names one host, by its key."""
    keys = {"scp.host": settings.scp.host}
    for number, peer in enumerate(settings.destination):
        keys[f"destination.{number}.{'url' if isinstance(peer, DicomwebSettings) else 'host'}"] = peer.host
    for number, caller in enumerate(settings.scp.allowed_peers):
        if caller.host and network_of(caller.host) is None:
            keys[f"scp.allowed_peers.{number}.host"] = caller.host
    if isinstance(settings.completion.count_from, AskedPeer):
        keys["completion.count_from.host"] = settings.completion.count_from.host
    return keys


def look_up(hosts: set[str]) -> Found:
    """The addresses of each host, or why it has none.

    All are asked for at once, because a name server that is down lets each wait for many seconds; and by threads that
    keep no process from its end.
    """
    found: dict[str, frozenset[str] | str] = {}

    def ask(host: str) -> None:
        found[host] = _addresses(host)

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _addresses(host: str) -> frozenset[str] | str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return frozenset(str(entry[4][0]) for entry in found)


def _own(settings: Settings, found: Found) -> Iterator[Finding]:
    scp = settings.scp
    listening = frozenset({scp.listening_host}) if scp.is_closed else found[scp.host]
    everywhere = {"0.0.0.0", "::"} & set(listening)  # noqa: S104 - compared, not bound
    for number, peer in enumerate(settings.destination):
        addresses = found[peer.host]
        if peer.port != settings.scp.port or isinstance(addresses, str):
            continue
        if (everywhere and any(_is_of_this_machine(one) for one in addresses)) or addresses & set(listening):
            yield Finding(
                f"destination.{number} ({peer.name}) is this node itself: {peer.host}:{peer.port} is where it listens, "
                "and what it sends would come back as a new series"
            )


def _is_of_this_machine(address: str) -> bool:
    """Whether a socket can have this address; no packet is sent."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _twice(settings: Settings, found: Found) -> Iterator[Finding]:
    peers = [
        (found[one.host], one.port, one.url if isinstance(one, DicomwebSettings) else one.ae_title)
        for one in settings.destination
    ]
    for peer, count in Counter(peers).items():
        if count > 1 and not isinstance(peer[0], str):
            names = [one.name for one, place in zip(settings.destination, peers, strict=True) if place == peer]
            yield warning(f"the destinations {', '.join(names)} are one peer: it gets every series {count} times")


def _count_from(settings: Settings) -> Iterator[Finding]:
    name = settings.completion.count_from
    names = [peer.name for peer in settings.dimse_destinations]
    if isinstance(name, str) and name and name not in names:
        yield Finding(
            f"completion.count_from = {name!r} names no destination that is asked by C-FIND; there are "
            f"{', '.join(names) or 'none'}, and a peer of its own is written as a table"
        )


# -- this machine ----------------------------------------------------------------------------------------------


def check_port(scp: ScpSettings, run_dir: Path) -> Iterator[Finding]:
    """Whether the receiver could listen where it should; its own port, while it runs, is no finding."""
    yield from _check_place(scp.listening_host, scp, run_dir)
    if scp.is_closed:  # an address that this machine has not is a mistake although nobody listens there yet
        yield from (found for found in _check_place(scp.host, scp, run_dir) if found.is_mistake)


def _check_place(host: str, scp: ScpSettings, run_dir: Path) -> Iterator[Finding]:
    place = f"scp.host = {host!r}, scp.port = {scp.port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, scp.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        return  # told with the other names
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                yield Finding(f"{place}: this machine has no such address")
            elif error.errno == errno.EACCES:
                yield warning(f"{place}: this user may not listen there; ports below 1024 need a right of their own")
            elif error.errno == errno.EADDRINUSE:
                if not any(view.role == "receive" for view in running_processes(run_dir)):
                    yield warning(f"{place}: another program listens there")
            else:
                yield warning(f"{place}: {error.strerror}")


def check_callers(scp: ScpSettings) -> Iterator[Finding]:
    """Who may send: nobody but this machine, everybody, or AE titles that any certificate of the CA may call itself."""
    if scp.is_closed:
        yield warning(
            f"scp.allowed_peers is empty: the receiver listens on {scp.listening_host} and not on scp.host = "
            f"{scp.host!r}, so only programs of this machine can send; name the peers, or set scp.allow_everyone = true"
        )
    elif not scp.allowed_peers and scp.allow_everyone:
        yield warning("scp.allow_everyone = true: every program that reaches the port may send, under any AE title")
    unbound = [peer.ae_title for peer in scp.allowed_peers if not peer.certificate]
    if scp.tls is not None and (unbound or not scp.allowed_peers):
        titles = ", ".join(unbound) or "every AE title"
        yield warning(
            f"scp.tls: whoever has a certificate that the CA signed may call itself {titles}; `certificate` in "
            "scp.allowed_peers binds an AE title to one"
        )


def check_reports(settings: Settings) -> Iterator[Finding]:
    """Destinations that shall commit to what they got, and cannot reach the receiver with their report."""
    for number, peer in enumerate(settings.destination):
        if peer.confirm == "commitment" and settings.scp.is_closed and peer.host not in _THIS_MACHINE:
            yield warning(
                f"destination.{number} ({peer.name}) cannot report on storage commitment: the receiver listens on "
                f"{settings.scp.listening_host} only; name the peers in scp.allowed_peers"
            )


def is_without_dicomweb(peer: AnyDestination) -> bool:
    """Whether a destination is reached by DICOMweb, and the package for it is not installed."""
    return isinstance(peer, DicomwebSettings) and find_spec("dicomweb_client") is None


def check_dicomweb(settings: Settings) -> Iterator[Finding]:
    """Whether what destinations of DICOMweb need is there: the extra package, and the files with their secrets."""
    for number, peer in enumerate(settings.destination):
        if isinstance(peer, DicomwebSettings):
            if is_without_dicomweb(peer):
                yield Finding(f"destination.{number} ({peer.name}): {WITHOUT_DICOMWEB}")
            try:
                if peer.token_file is not None:
                    read_token(peer.token_file)
                elif peer.password_file is not None:
                    read_secret(peer.password_file)
            except UnusableSecret as error:
                yield Finding(f"destination.{number} ({peer.name}): {error}")


def check_objects(settings: SpoolSettings) -> Iterator[Finding]:
    """Whether what the object store needs is there: the extra package, and the files of the settings."""
    if not settings.url:
        return
    if find_spec("obstore") is None:
        yield Finding("spool.url needs the package obstore: install syncect[objects]")
    try:
        if settings.credentials_file is not None and ":" not in read_secret(settings.credentials_file):
            yield Finding(f"spool.credentials_file: {settings.credentials_file} is not one line KEY_ID:SECRET")
    except UnusableSecret as error:
        yield Finding(f"spool.credentials_file: {error}")
    if settings.ca is not None and not settings.ca.is_file():
        yield Finding(f"spool.ca = {str(settings.ca)!r} is no file")


def check_data_dir(data_dir: Path) -> Iterator[Finding]:
    """Whether this user, and no other, may write there, or could make the folder; nothing is left there."""
    folder = nearest_folder(data_dir.absolute())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        place = "" if folder == data_dir.absolute() else f" in {folder}"
        yield Finding(f"node.data_dir = {str(data_dir)!r} cannot be written{place}: {error.strerror}")
    if open_ones := loose(data_dir):
        count = f" and {len(open_ones) - 1} more" if len(open_ones) > 1 else ""
        yield warning(f"other users of this machine can read {open_ones[0]}{count}; the next start of the node ends it")


def check_database(url: str) -> Iterator[Finding]:
    """Whether the database answers, takes these credentials, is sound and has this version's tables, or none."""
    try:
        database = Database(url, read_only=True)
        try:
            if database.has_schema():
                look_through(database)
        finally:
            database.close()
    except StorageError as error:
        yield Finding(str(error))


# -- bundle ----------------------------------------------------------------------------------------------------


def check_bundles(settings: ModelSettings, in_use: Mapping[str, str]) -> Iterator[Finding]:
    """Whether each bundle is whole, loads on the device, and was measured to be better than no model at all.

    in_use: the bundles that translate, by their keys in the settings. The same for the one of the shadow, which must be
    another one than that of `model.bundle` and may be as bad as it is.
    """
    cards = {}
    for where, name in in_use.items():
        key = f"{where} = {name!r}"
        cards[name] = card = yield from _check_whole(key, name, settings, settings.blood_level_hu)
        if card is not None and (why := models.why_unproven(card)):
            yield _unproven(key, card, why, settings)
    if settings.shadow:
        key, card = f"model.shadow = {settings.shadow!r}", cards.get(settings.bundle)
        second = yield from _check_whole(key, settings.shadow, settings, 0.0)
        if second is not None and second == card:
            yield Finding(f"{key} is the bundle of model.bundle; a shadow compares another one with it")


def _unproven(key: str, card: BundleCard, why: str, settings: ModelSettings) -> Finding:
    """An unproven bundle is a mistake of the settings, unless they allow it by its name."""
    if card.name in settings.allow_unproven:
        return warning(f"{key}: {why}; model.allow_unproven allows it")
    return Finding(f"{key} is refused: {why}")


def _check_whole(
    key: str, name: str, settings: ModelSettings, level_hu: float
) -> Generator[Finding, None, BundleCard | None]:
    """Whether a bundle is whole and loads; returns its card where it is whole. level_hu: of blood, 0 for its own."""
    try:
        path = models.find_bundle(name)
        card = models.verify_bundle(path)
    except (ModelsError, OSError) as error:
        yield Finding(f"{key} cannot be used: {error}")
        return None
    try:
        models.load_bundle(
            path,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.batch_size or None,
            blood_level_hu=level_hu or None,
        )
    except models.DeviceUnavailable as error:
        yield Finding(f"model.device = {settings.device!r} cannot be used: {error}")
    except (ModelsError, RuntimeError, OSError) as error:
        yield Finding(f"{key} cannot be loaded: {' '.join(str(error).split())}")
    return card
