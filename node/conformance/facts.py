"""Collects what the statement says: each value is read where the program keeps it, and stands nowhere else."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from config.fields import Section
from config.settings import AskedPeer, DestinationSettings, PeerSettings, Settings, TlsSettings
from node.conformance.contexts import ContextRow, accepted, proposals
from node.conformance.derived import AttributeRow, derived_attributes, scanner_attributes
from node.dicom import charsets, frames, identity
from node.dicom.companions.kinds import KINDS
from node.dicom.constants import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    MULTI_FRAME_CT_CLASSES,
    PRODUCT_NAME,
)
from node.dicom.profiles.load import load_profile, profile_names
from node.network import answers, commitment, dimse_guard, procedure_step, retrieval, server, tls, upper_layer
from node.network.requestor import PDU_BYTES, Timeouts
from node.network.status import store_readings
from node.query import find, keys, matching, retrieve, scp
from node.receive import admission, receiver
from node.send.commitment import FIRST_WAIT_S, KEEP_OPEN_S
from node.send.confirmation import GIVE_UP_S
from storage.commitments import MAX_RESENDS
from storage.peers import LONGEST_WAIT_S

_SECTIONS: Final = ("scp", "query", "completion", "destination", "series")


@dataclass(frozen=True)
class Entity:
    """One application entity. titles: its AE titles; port: 0 for one that only asks."""

    name: str
    titles: tuple[str, ...]
    port: int
    does: str


@dataclass(frozen=True)
class Facts:
    """All that the statement holds beside its sentences."""

    product: str
    implementation_class_uid: str
    implementation_version_name: str
    entities: tuple[Entity, ...]
    accepted: tuple[ContextRow, ...]
    proposed: tuple[ContextRow, ...]
    multi_frame: tuple[str, ...]
    companions: dict[str, str]
    numbers: dict[str, float]
    rejections: dict[str, str]
    received_statuses: tuple[tuple[str, str, str], ...]
    query_keys: dict[str, dict[str, tuple[str, ...]]]
    character_sets: tuple[str, ...]
    misspelt: tuple[str, ...]
    tls_suites: dict[str, tuple[str, ...]]
    profiles: tuple[tuple[str, str, int], ...]
    derived: tuple[AttributeRow, ...]
    of_the_scanner: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


def facts_of(settings: Settings) -> Facts:
    """The facts with these settings."""
    return Facts(
        product=PRODUCT_NAME,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        entities=_entities(settings),
        accepted=tuple(accepted(settings)),
        proposed=tuple(proposals(settings)),
        multi_frame=tuple(sorted(MULTI_FRAME_CT_CLASSES)),
        companions={name: kind.sop_class_uid for name, kind in KINDS.items()},
        numbers=_numbers(),
        rejections=_rejections(),
        received_statuses=_received(),
        query_keys={
            level: {"unique": (keys.UNIQUE[level],), "header": keys.KEYS[level], "counted": keys.COUNTED[level]}
            for level in keys.LEVELS
        },
        character_sets=tuple(sorted(term for term in charsets.ENCODINGS if term)),
        misspelt=tuple(sorted(charsets.SPELLINGS)),
        tls_suites={name: tuple(suites.split(":")) for name, suites in tls.CIPHERS.items()},
        profiles=tuple(
            (name, profile.about, len(profile.rules)) for name in profile_names() for profile in [load_profile(name)]
        ),
        derived=tuple(derived_attributes()),
        of_the_scanner=tuple(scanner_attributes()),
        settings=tuple(_settings(settings)),
    )


def _entities(settings: Settings) -> tuple[Entity, ...]:
    """The application entities, each with all AE titles by which it is called, or by which it calls."""
    return (
        Entity("receiver", settings.scp.ae_titles, settings.scp.port, "takes images, and what is said about them"),
        Entity("query", settings.query_scp.ae_titles, settings.query.port, "answers queries, and retrieves results"),
        Entity(
            "archive", (settings.archive.ae_title,), settings.archive.port, "fetches series for `syncect archive run`"
        ),
        Entity("sender", (settings.scp.ae_title,), 0, "sends results, and asks destinations and peers"),
    )


def _numbers() -> dict[str, float]:
    sender = Timeouts()
    return {
        "receiver_pdu_bytes": upper_layer.MAX_PDU_BYTES,
        "sender_pdu_bytes": PDU_BYTES,
        "acse_timeout_s": server.ACSE_TIMEOUT_S,
        "receiver_network_timeout_s": receiver.QUIET_TIMEOUT_S,
        "query_network_timeout_s": scp.QUIET_TIMEOUT_S,
        "query_dimse_timeout_s": scp.ANSWER_TIMEOUT_S,
        "pdu_timeout_s": upper_layer.PDU_TIMEOUT_S,
        "slow_message_s": dimse_guard.MESSAGE_TIMEOUT_S,
        "slow_message_bytes_s": dimse_guard.MIN_RATE_BYTES_S,
        "request_bytes": dimse_guard.MAX_REQUEST_BYTES,
        "dataset_bytes": receiver.MAX_DATASET_BYTES,
        "in_flight_bytes": receiver.MAX_IN_FLIGHT_BYTES,
        "request_elements": identity.MAX_REQUEST_ELEMENTS,
        "query_values": matching.MAX_VALUES,
        "query_chars": matching.MAX_CHARS,
        "frames": frames.MAX_FRAMES,
        "idle_place_s": admission.SPARE_S,
        "kept_places": admission.KEPT_PLACES,
        "reporting_places": admission.REPORTING_PLACES,
        "connect_timeout_s": sender.connection_s,
        "sender_acse_timeout_s": sender.acse_s,
        "sender_dimse_timeout_s": sender.dimse_s,
        "answers": answers.MAX_ANSWERS,
        "list_bytes": answers.MAX_LIST_BYTES,
        "moving_silent_s": retrieval.MOVING.dimse_s,
        "moving_s": retrieval.MOVING.answers_s,
        "answers_bytes": answers.MAX_ANSWERS_BYTES,
        "answer_bytes": answers.MAX_MESSAGE_BYTES,
        "answers_s": sender.answers_s,
        "commitment_references": commitment.MAX_REFERENCES,
        "commitment_open_s": KEEP_OPEN_S,
        "commitment_wait_s": FIRST_WAIT_S,
        "commitment_give_up_s": GIVE_UP_S,
        "commitment_resends": MAX_RESENDS,
        "step_series": procedure_step.MAX_SERIES,
        "step_references": procedure_step.MAX_REFERENCES,
        "longest_pause_s": LONGEST_WAIT_S,
        "matches": find.MAX_ANSWERS,
        "query_s": find.MAX_QUERY_S,
        "retrieved": retrieve.MAX_INSTANCES,
    }


def _rejections() -> dict[str, str]:
    told = {
        admission.WRONG_APPLICATION: "another application context than DICOM's",
        admission.WRONG_CALLING_AE: (
            "the calling AE title is not one of `scp.allowed_peers` at its address, or its client certificate is not "
            "the one that the entry binds"
        ),
        admission.WRONG_CALLED_AE: "another called AE title",
        admission.LIMIT_REACHED: "all places of this peer are taken",
    }
    return {f"{one.result}/{one.source}/{one.reason}": words for one, words in told.items()}


def _received() -> tuple[tuple[str, str, str], ...]:
    """C-STORE statuses of destinations: the codes, what is done, and how it is called."""
    rows = []
    for first, last, reading in store_readings():
        code = f"{first:04X}" if first == last else f"{first:04X} to {last:04X}"
        rows.append((code, reading.verdict.value, reading.sentence))
    return tuple(rows)


def _settings(settings: Settings) -> list[tuple[str, str]]:
    """Key and value of what peers can notice; of a peer its AE title, never its address or a file."""
    found = []
    for section in _SECTIONS:
        value = getattr(settings, section)
        if isinstance(value, Section):
            found += [(f"{section}.{key}", _shown(getattr(value, key))) for key in type(value).model_fields]
        else:
            found.append((section, _shown(value)))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, TlsSettings):
        return f"on, profile {value.profile}"
    if isinstance(value, PeerSettings | AskedPeer):
        return value.ae_title
    if isinstance(value, DestinationSettings):
        details = f"confirm = {value.confirm}, profile = {value.profile}, companions = {_shown(value.companions)}"
        return f"{value.name} ({value.ae_title}): {details}"
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value)) or "none"
    return {"": "none", "True": "true", "False": "false", "None": "none"}.get(str(value), str(value))
