"""The settings of a node as one immutable tree, which is loaded once and passed on in parts; nothing is done here.

One TOML file, every key of which can be overridden as SYNCECT_SECTION__KEY. Wrong keys and values stop the program at
its start with a sentence for each (`ConfigError`): file, key, and what is allowed.
"""

import re
from datetime import tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from config.alerting import AlertSettings
from config.destinations import Destination, DicomwebSettings
from config.fields import (
    AeTitle,
    CertificateName,
    Host,
    Hosts,
    OptionalAeTitle,
    Port,
    Section,
    TimeZone,
    UidRoot,
    check_host,
    is_loopback,
)
from config.queue import QueueSettings
from config.routes import ConditionSettings, RouteSettings, check_routes
from config.spool import SpoolSettings
from config.syntax import network_of


class NodeSettings(Section):
    """Where the node keeps what must survive a crash."""

    data_dir: Path = Path("syncect-data")
    database_url: str = ""
    installation_uid_root: UidRoot = ""
    timezone: TimeZone = ""

    def url(self) -> str:
        """SQLAlchemy URL; without a setting, a SQLite file inside `data_dir`."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'syncect.sqlite3').absolute()}"

    def zone(self) -> tzinfo | None:
        """The time zone in which people read times here; None is the machine's."""
        return ZoneInfo(self.timezone) if self.timezone else None


class TlsSettings(Section):
    """DICOM TLS after PS3.15 B.12 or B.13: own certificate and key, the CA that signed the peers', what it revoked."""

    certificate: Path
    private_key: Path
    ca: Path
    crl: Path | None = None
    profile: Literal["bcp195-rfc8996", "bcp195-rfc8996-modified"] = "bcp195-rfc8996"


class PeerSettings(Section):
    """A peer that may open associations; `host` is an IP address, a network, a host name, or empty for any.

    certificate: a common name or DNS name that its client certificate must have, or its fingerprint; empty for any that
    `scp.tls.ca` signed. port: where it listens for reports of storage commitment, at the address from which it asked; 0
    for reports on its own associations alone. steps_of: AE titles of the scanners whose performed procedure steps it
    forwards, as a RIS does.
    """

    ae_title: AeTitle
    host: Hosts = ""
    certificate: CertificateName = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    steps_of: tuple[AeTitle, ...] = ()


class ScpSettings(Section):
    """The receiver. With an empty `allowed_peers` it accepts every calling AE title, of this machine only.

    more_ae_titles: further titles by which peers may call it. allow_everyone: of every machine. foreign_instances: what
    becomes of an instance of a series that another peer sent. commitment: what becomes of a request for storage
    commitment; none is ever granted. mpps: whether scanners may report their performed procedure steps, which then say
    when a series is complete.
    """

    ae_title: AeTitle = "SYNCECT"
    host: Host = "0.0.0.0"  # noqa: S104 - a storage SCP is there to be reached
    port: Port = 11112
    more_ae_titles: tuple[AeTitle, ...] = ()
    allowed_peers: tuple[PeerSettings, ...] = ()
    allow_everyone: bool = False
    foreign_instances: Literal["refuse", "hold"] = "refuse"
    commitment: Literal["refuse", "fail_all"] = "refuse"
    mpps: bool = False
    max_associations: Annotated[int, Field(ge=1, le=200)] = 25
    max_associations_per_peer: Annotated[int, Field(ge=0, le=200)] = 0
    tls: TlsSettings | None = None

    @model_validator(mode="after")
    def _place_for_each_peer(self) -> Self:
        if len(self.allowed_peers) > self.max_associations:
            raise ValueError(
                "max_associations must be at least the number of allowed_peers: each has a place of its own"
            )
        return self

    @model_validator(mode="after")
    def _certificates_are_shown(self) -> Self:
        if self.tls is None and any(peer.certificate for peer in self.allowed_peers):
            raise ValueError("allowed_peers names a certificate, and without [scp.tls] no peer shows one")
        return self

    @property
    def ae_titles(self) -> tuple[str, ...]:
        """Every AE title by which peers may call."""
        return (self.ae_title, *self.more_ae_titles)

    @property
    def is_closed(self) -> bool:
        """Whether `host` is not listened on, because nobody said who may send."""
        return not self.allowed_peers and not self.allow_everyone and not is_loopback(self.host)

    @property
    def listening_host(self) -> str:
        """The address that is listened on: `host`, or a loopback address where nobody said who may send."""
        if self.is_closed:
            return "::1" if ":" in self.host else "127.0.0.1"
        return self.host


class QuerySettings(Section):
    """Query/Retrieve as an SCP over results; peers, address, TLS and places are those of [scp].

    ae_title: by which peers call it, "" for that of [scp].
    """

    enabled: bool = False
    port: Port = 11114
    ae_title: OptionalAeTitle = ""


class AskedPeer(Section):
    """A peer that is only asked by C-FIND."""

    ae_title: AeTitle
    host: Host
    port: Port = 104
    tls: TlsSettings | None = None


class CompletionSettings(Section):
    """When a series counts as complete; both in seconds since the last instance.

    count_from: the name of a destination, or a peer of its own, that is asked how many images a series has.
    """

    quiet_s: Annotated[float, Field(ge=0.2, le=3600)] = 10.0
    give_up_s: Annotated[float, Field(ge=1, le=86400)] = 300.0
    count_from: str | AskedPeer = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.give_up_s < self.quiet_s:
            raise ValueError("give_up_s must not be shorter than quiet_s")
        return self


class RuleSettings(ConditionSettings):
    """One site rule: a series that does not satisfy it is skipped with `reason`."""

    reason: str


class EligibilitySettings(Section):
    """Which series are translated, beyond the built-in gate for non-contrast planning CT."""

    min_slices: Annotated[int, Field(ge=2, le=2000)] = 8
    metal_artifact_reduction: Literal["hold", "process"] = "hold"
    position_tolerance_mm: Annotated[float, Field(ge=0.01, le=1.0)] = 0.15
    rules: tuple[RuleSettings, ...] = ()


class ModelSettings(Section):
    """Which bundle translates, and on what. A device that is not there holds the jobs; nothing slower steps in.

    shadow: a second bundle, which is measured beside the first and sends nothing. blood_level_hu: the enhancement of
    blood that results are drawn with, 0 for the one that the bundle was taught. constancy_days: a constancy run must
    have PASSED within so many days; 0 asks for none. doubt: whether it looks at each scan twice, and whether a
    result in which it contradicts itself is held. allow_unproven: names of bundles that may be used although their
    cards do not show that they are better than no model. require_acceptance: a bundle is used only after a person
    accepted it. executor: "local" computes in the worker's own process, "ray" on the actors of [ray].
    """

    bundle: str = "demo-1step"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    batch_size: Annotated[int, Field(ge=0, le=256)] = 0
    outside_envelope: Literal["hold", "warn"] = "hold"
    blood_level_hu: Annotated[float, Field(ge=0, le=200)] = 0.0
    shadow: str = ""
    constancy_days: Annotated[int, Field(ge=0, le=366)] = 0
    doubt: Literal["hold", "mark", "off"] = "hold"
    allow_unproven: tuple[str, ...] = ()
    require_acceptance: bool = False
    executor: Literal["local", "ray"] = "local"

    @model_validator(mode="after")
    def _another_bundle(self) -> Self:
        if self.shadow and self.executor == "ray":
            raise ValueError('shadow is measured by a worker with executor = "local" only')
        if self.shadow and self.shadow == self.bundle:
            raise ValueError("shadow must be another bundle than the one that translates")
        if 0 < self.blood_level_hu < 40:
            raise ValueError("blood_level_hu must be from 40 to 200, or 0 for the level that the bundle was taught")
        return self


def _whole_above_one(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("above 1 it should be a whole number, since Ray shares out parts of one GPU only")
    return value


class RaySettings(Section):
    """The cluster of `model.executor = "ray"`.

    address: "" for one of this machine alone, "auto" for the one that this host belongs to, or host:port of its head.
    actors: 0 for as many as the cluster has GPUs, or pairs of cores, for. gpus_per_actor: a fraction, or whole.
    jobs_per_actor: series that an actor has in hand at a time. object_store_mb: bound of what is on its way, MiB.
    """

    address: Annotated[str, Field(pattern=r"^(auto|[A-Za-z0-9.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5})?$")] = ""
    actors: Annotated[int, Field(ge=0, le=256)] = 0
    gpus_per_actor: Annotated[float, Field(ge=0.05, le=8), AfterValidator(_whole_above_one)] = 1.0
    jobs_per_actor: Annotated[int, Field(ge=1, le=8)] = 2
    object_store_mb: Annotated[int, Field(ge=64, le=1_048_576)] = 2048


class ArchiveSettings(Section):
    """Where a PACS sends what `syncect archive run` asks for by C-MOVE; address, TLS and other peers as in [scp]."""

    ae_title: AeTitle = "SYNCECT-ARCHIVE"
    port: Port = 11115


class DestinationSettings(Destination):
    """A destination that is sent to by C-STORE and asked by C-ECHO and C-FIND."""

    kind: Literal["dimse"] = "dimse"
    ae_title: AeTitle
    host: Host
    port: Port = 104
    tls: TlsSettings | None = None
    confirm: Literal["none", "find", "commitment"] = "none"


def _kind(value: Any) -> Any:
    return value.get("kind", "dimse") if isinstance(value, dict) else getattr(value, "kind", "dimse")


AnyDestination = DestinationSettings | DicomwebSettings
_ByKind = Annotated[
    Annotated[DestinationSettings, Tag("dimse")] | Annotated[DicomwebSettings, Tag("dicomweb")], Discriminator(_kind)
]


class SeriesSettings(Section):
    """How the derived series is named in the TPS."""

    description_prefix: Annotated[str, Field(pattern=r"^[\x20-\x5b\x5d-\x7e]{4,32}$")] = "sCE-CT AI"
    number_rule: Literal["source*100+1", "source+9000"] = "source*100+1"


class RetentionSettings(Section):
    """When files leave the disk; only what no delivery needs any more goes. Below `min_free_gb` the receiver refuses.

    days: of results, 0 keeps them. source_days: of received files, 0 as long as results; never before the result of
    the series was delivered. target_free_gb: below it the oldest go earlier, 0 is never. history_days: after which the
    events of a series without files go, 0 keeps them.
    """

    days: Annotated[int, Field(ge=0, le=36500)] = 0
    source_days: Annotated[int, Field(ge=0, le=36500)] = 0
    target_free_gb: Annotated[float, Field(ge=0)] = 0.0
    min_free_gb: Annotated[float, Field(ge=0)] = 2.0
    history_days: Annotated[int, Field(ge=0, le=36500)] = 400

    @model_validator(mode="after")
    def _target_above_the_reserve(self) -> Self:
        if 0 < self.target_free_gb <= self.min_free_gb:
            raise ValueError("target_free_gb must be more than min_free_gb, at which the receiver already refuses")
        return self


def _named_host(value: str) -> str:
    """A name or an address as a browser sends it, in lower case and without a port."""
    return check_host(value).lower()


def _network(value: str) -> str:
    if network_of(value) is None:
        raise ValueError("it should be an IP address or a network such as 10.1.2.0/24")
    return value


def _header_name(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", value):
        raise ValueError("a header's name has letters, digits and hyphens, such as X-Forwarded-User")
    if value.lower() in {"host", "cookie", "origin", "authorization", "x-csrf-token"}:
        raise ValueError("this header has another meaning")
    return value


def _syslog(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        is_whole = bool(parts.hostname and parts.port) and not (parts.path or parts.query or parts.username)
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("udp", "tcp", "tls"):
        raise ValueError("it should be udp://host:514, tcp://host:601 or tls://host:6514, with the port")
    return value


Network = Annotated[str, AfterValidator(_network)]


class WebTlsSettings(Section):
    """The certificate (with its chain) and the private key of the page, both in PEM."""

    certificate: Path
    private_key: Path


class WebSettings(Section):
    """The status page, a process of `serve`; `host` is the address that it listens on, loopback by default.

    allowed_hosts: further names by which browsers may call it. trusted_proxies: networks of the proxies whose headers
    count. user_header, role_header: where these say who asks. monitors: networks that read /healthz, /readyz and
    /metrics without a login. session_idle_s, session_s: a login ends after so long without a click, and in any case,
    seconds. audit_syslog: where audit messages (PS3.15 A.5) go, "" for nowhere.
    """

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: Port = 11180
    allowed_hosts: tuple[Annotated[str, AfterValidator(_named_host)], ...] = ()
    tls: WebTlsSettings | None = None
    trusted_proxies: tuple[Network, ...] = ()
    user_header: Annotated[str, AfterValidator(_header_name)] = ""
    role_header: Annotated[str, AfterValidator(_header_name)] = ""
    monitors: tuple[Network, ...] = ("127.0.0.0/8", "::1")
    session_idle_s: Annotated[float, Field(ge=60, le=86400)] = 1800.0
    session_s: Annotated[float, Field(ge=300, le=7 * 86400)] = 43200.0
    audit_syslog: Annotated[str, AfterValidator(_syslog)] = ""

    @model_validator(mode="after")
    def _passwords_inside_tls(self) -> Self:
        if self.enabled and not is_loopback(self.host) and self.tls is None and not self.trusted_proxies:
            raise ValueError(
                "with this host passwords would cross the network in clear; give [web.tls], or trusted_proxies with "
                'the address of the proxy that ends TLS, or host = "127.0.0.1"'
            )
        return self

    @model_validator(mode="after")
    def _headers_of_a_proxy(self) -> Self:
        if self.user_header and not self.trusted_proxies:
            raise ValueError("user_header needs trusted_proxies: from anywhere else the header would be a forgery")
        if self.role_header and not self.user_header:
            raise ValueError("role_header needs user_header: a role belongs to a person")
        if self.user_header and self.user_header.lower() == self.role_header.lower():
            raise ValueError("user_header and role_header must differ")
        return self

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}"


class LogSettings(Section):
    """The log of each process. format: of the lines on standard error; those of its own files are JSON.

    files: whether `DATA_DIR/log` is written, of which `jobs logs` reads. file_mb: megabytes (10^6 bytes) of one file.
    files_kept: how many files a process has at most.
    """

    format: Literal["console", "json"] = "console"
    files: bool = True
    file_mb: Annotated[float, Field(ge=0.1, le=1000)] = 10.0
    files_kept: Annotated[int, Field(ge=2, le=100)] = 5


class Settings(Section):
    """The whole tree."""

    node: NodeSettings = NodeSettings()
    spool: SpoolSettings = SpoolSettings()
    scp: ScpSettings = ScpSettings()
    completion: CompletionSettings = CompletionSettings()
    query: QuerySettings = QuerySettings()
    eligibility: EligibilitySettings = EligibilitySettings()
    model: ModelSettings = ModelSettings()
    ray: RaySettings = RaySettings()
    archive: ArchiveSettings = ArchiveSettings()
    destination: tuple[_ByKind, ...] = ()
    route: tuple[RouteSettings, ...] = ()
    queue: QueueSettings = QueueSettings()
    series: SeriesSettings = SeriesSettings()
    retention: RetentionSettings = RetentionSettings()
    web: WebSettings = WebSettings()
    alerts: AlertSettings = AlertSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _distinct_destinations_and_known_routes(self) -> Self:
        names = [destination.name for destination in self.destination]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have the same name; each needs its own")
        if self.route:
            titles = {one.name: one.ae_title for one in self.dimse_destinations}
            getting = [(one.name, titles.get(one.name, "")) for one in self.destination if one.receives == "results"]
            check_routes(self.route, self.scp.ae_titles, getting)
        return self

    @model_validator(mode="after")
    def _distinct_ports(self) -> Self:
        if self.query.enabled and self.query.port == self.scp.port:
            raise ValueError("query.port and scp.port must differ: the two are servers of their own")
        return self

    @property
    def dimse_destinations(self) -> tuple[DestinationSettings, ...]:
        """The destinations that associations are requested of."""
        return tuple(one for one in self.destination if isinstance(one, DestinationSettings))

    @property
    def destination_of_title(self) -> dict[str, str]:
        """The name of each destination that gets results, by its AE title."""
        return {one.ae_title: one.name for one in self.dimse_destinations if one.receives == "results"}

    @property
    def query_scp(self) -> ScpSettings:
        """The settings of [scp] with the port and the one AE title of queries."""
        title = self.query.ae_title or self.scp.ae_title
        return self.scp.model_copy(update={"port": self.query.port, "ae_title": title, "more_ae_titles": ()})
