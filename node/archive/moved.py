"""Series of an archive that a PACS sends by C-MOVE: the command receives them, and actors find them in the output.

A PACS sends to an AE title that it knows at one address, and actors run on many hosts. So the command alone listens;
whoever has a series in hand asks the PACS for it, and takes the images from the output, which every host reaches.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from config.settings import DestinationSettings, PeerSettings, ScpSettings, Settings
from node.archive.index import DIMSE, Entry, is_uid
from node.bootstrap.places import Place
from node.errors import Misconfigured, Permanent, Retryable
from node.network.no_association import NoAssociation
from node.network.query import find_instances, takes_questions
from node.network.requestor import Timeouts
from node.network.retrieval import UnknownDestination, move_series, takes_moves
from node.receive.asked_series import listening
from storage.errors import ObjectsUnavailable

MOVED: Final = "moved"
"""Folder of the output with images that came and that no actor has taken yet."""


class Lacking(Retryable):
    """A PACS has answered, and not all images that it lists of a series have come."""


def peer_of(settings: Settings, entry: Entry) -> DestinationSettings:
    """The `[[destination]]` of kind "dimse" that a source names; raises Misconfigured."""
    name = entry.source.removeprefix(DIMSE)
    for one in settings.dimse_destinations:
        if one.name == name:
            return one
    raise Misconfigured('a source of the index names no [[destination]] of kind = "dimse"')


def check_peers(settings: Settings, entries: Iterable[Entry]) -> None:
    """Raise Misconfigured where a source names a PACS that the settings do not have, or two PACS shall send a series.

    Of the same series from two of them nobody could tell which image is whose.
    """
    seen: set[str] = set()
    for entry in _of_pacs(entries):
        peer_of(settings, entry)
        if entry.series_uid in seen:
            raise Misconfigured("the index names one series for two PACS; name it once")
        seen.add(entry.series_uid)


@contextmanager
def receiving(settings: Settings, entries: Iterable[Entry], out: Place) -> Iterator[None]:
    """Take what is moved of these entries into the output as long as the block lasts; nothing where no PACS moves any.

    Raises Misconfigured where nobody can listen, NoAssociation where a PACS takes no C-FIND or C-MOVE,
    ObjectsUnavailable, OSError.
    """
    waiting = _of_pacs(entries)
    if not waiting:
        yield
        return
    wanted = {(one.study_uid, one.series_uid): one.key for one in waiting}
    peers = {one.name: one for one in (peer_of(settings, entry) for entry in waiting)}

    def keep(key: str, sop_instance_uid: str, data: bytes) -> None:
        out.put(_name(key, sop_instance_uid), data)

    with listening(receiver_settings(settings, peers.values()), "archive.port", wanted, keep):
        _clear(out)  # of a run that was killed
        for peer in peers.values():
            takes_questions(peer, settings.archive.ae_title, Timeouts())
            takes_moves(peer, settings.archive.ae_title, Timeouts())
        try:
            yield
        finally:
            wanted.clear()
            with suppress(ObjectsUnavailable, OSError):
                _clear(out)


def move(settings: Settings, entry: Entry) -> list[str]:
    """Let a PACS send a series; returns the names that its images have in the output then.

    Raises Permanent where it lists none, Lacking where it could not send all, Misconfigured where it does not know the
    command's AE title as a destination, Retryable where it does not answer.
    """
    peer, title = peer_of(settings, entry), settings.archive.ae_title
    try:
        uids = sorted(find_instances(peer, title, entry.study_uid, entry.series_uid))
        if not uids:
            raise Permanent("the PACS lists no image of this series")
        if not all(is_uid(uid) for uid in uids):
            raise Permanent("the PACS lists an image by something that is no UID")
        moved = move_series(peer, title, title, entry.study_uid, entry.series_uid)
    except UnknownDestination as error:
        raise Misconfigured(str(error)) from error
    except NoAssociation as error:
        raise Retryable(f"the PACS: {error.reason}") from error
    if moved.failed:
        raise Lacking(f"the PACS could not send {moved.failed} of the {len(uids)} images that it lists")
    return [_name(entry.key, uid) for uid in uids]


def receiver_settings(settings: Settings, peers: Iterable[DestinationSettings]) -> ScpSettings:
    """The settings of [scp] with the AE title and the port of [archive], for these peers beside the allowed ones."""
    allowed = tuple(PeerSettings(ae_title=one.ae_title, host=one.host) for one in peers) + settings.scp.allowed_peers
    most = max(settings.scp.max_associations, len(allowed))
    own = {"ae_title": settings.archive.ae_title, "more_ae_titles": (), "port": settings.archive.port}
    return settings.scp.model_copy(update={**own, "allowed_peers": allowed, "max_associations": most})


def _of_pacs(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.source.startswith(DIMSE)]


def _name(key: str, sop_instance_uid: str) -> str:
    """Of an image in the output: hex, of nothing that a peer could have chosen."""
    return f"{MOVED}/{key}/{hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:32]}"


def _clear(out: Place) -> None:
    out.delete([found.key for found in out.list(MOVED)])
