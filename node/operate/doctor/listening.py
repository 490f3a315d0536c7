"""Checks of the ports that this node listens on: whose they are, and whether the node answers there."""

import http.client
import ipaddress
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

from config.settings import DestinationSettings, Settings, TlsSettings, WebSettings
from config.syntax import network_of
from node.bootstrap.store import Node
from node.network.requestor import Timeouts
from node.operate.doctor.report import Line, Lines, Mark, of_finding
from node.ops.checks import check_port
from node.ops.processes import ProcessView, running_processes
from node.send.scu import EchoResult, StorageScu

SHORT: Final = Timeouts(connection_s=2.0, acse_s=2.5, dimse_s=2.5, send_s=2.0, answers_s=2.5)
_HTTP_S: Final = 2.0
_LISTENING: Final = "0A"  # state of a socket in /proc/net/tcp


def receiver_port(settings: Settings) -> Lines:
    """Whether the receiver's port is ours, free, or another program's."""
    scp = settings.scp
    place = f"port {scp.port} of {scp.listening_host}"
    views = running_processes(settings.node.data_dir / "run")
    findings = list(check_port(scp, settings.node.data_dir / "run"))
    own = next((view for view in views if view.role == "receive"), None)
    owners = _listeners(scp.port)
    strangers = owners - _tree(views)
    if own is not None and (own.pid in owners or not strangers):
        yield Line("receiver port", Mark.OK, f"{place}: the receiver, pid {own.pid}")
    elif strangers or findings:
        yield from _taken("receiver port", place, strangers, "scp.port")
        remedy = "correct scp.host, or let the user listen there (`setcap cap_net_bind_service`)"
        yield from (of_finding("receiver port", one, remedy) for one in findings if "another program" not in one.text)
        if findings and not strangers and all("another program" in one.text for one in findings):
            found = f"{place}: another program listens there"
            yield Line("receiver port", Mark.FAIL, found, f"`ss -ltnp sport = {scp.port}` as root names it; end it")
    else:
        yield Line("receiver port", Mark.OK, f"{place}: free")


def query_port(settings: Settings) -> Lines:
    """Whether the port of the query service is ours, free, or another program's; nothing where it is not enabled."""
    if not settings.query.enabled:
        return
    scp = settings.query_scp
    place = f"port {scp.port} of {scp.listening_host}"
    views = running_processes(settings.node.data_dir / "run")
    own = next((view for view in views if view.role == "query"), None)
    if strangers := _listeners(scp.port) - _tree(views):
        yield from _taken("query port", place, strangers, "query.port")
    else:
        yield Line("query port", Mark.OK, f"{place}: " + (f"the query service, pid {own.pid}" if own else "free"))


def _taken(check: str, place: str, pids: set[int], key: str) -> Lines:
    for pid in sorted(pids):
        found = f"{place}: another program listens there, pid {pid} ({_program(pid)})"
        yield Line(check, Mark.FAIL, found, f"end that program, or set {key} to a free port")


def _tree(views: list[ProcessView]) -> set[int]:
    """The processes of this node on this host."""
    return {view.pid for view in views}


def _listeners(port: int) -> set[int]:
    """The processes that listen on a TCP port, as far as this user may see."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError, ValueError, IndexError):
            for row in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = row.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    return {pid for pid in _processes() if sockets and sockets & _open_files(pid)}


def _processes() -> list[int]:
    with suppress(OSError):
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return []


def _open_files(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(entry.readlink()))
    return found


def _program(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    return "its name cannot be read"


# -- own AE title ----------------------------------------------------------------------------------------------


def own_ae_title(settings: Settings) -> Lines:
    """Whether the receiver answers a C-ECHO of this machine under its AE title, through TLS where that is set."""
    scp = settings.scp
    if not any(view.role == "receive" for view in running_processes(settings.node.data_dir / "run")):
        yield Line("own AE title", Mark.SKIP, "the receiver does not run", "start `syncect serve`")
        return
    caller = _caller(settings)
    if caller is None:
        found = f"no entry of scp.allowed_peers lets this machine send, so {scp.ae_title} was not asked"
        yield Line("own AE title", Mark.SKIP, found, "let a peer send a C-ECHO (`echoscu`) from its own host")
        return
    if scp.tls is None:
        yield _echoed(settings, _ask(settings, caller, None), caller)
        return
    answer = _ask(settings, caller, scp.tls)
    if not answer.ok and "certificate is not accepted" in answer.detail:
        found = f"TLS works, and no C-ECHO was sent: {answer.detail}"
        yield Line("own AE title", Mark.WARN, found, "let the certificate name the host by which peers call this node")
        return
    yield _echoed(settings, answer, caller)


def _caller(settings: Settings) -> str | None:
    """An AE title that may call from this machine; None where none may."""
    if not settings.scp.allowed_peers:
        return settings.scp.ae_title
    for peer in settings.scp.allowed_peers:
        if not peer.certificate and (not peer.host or _is_own(peer.host, _address(settings))):
            return peer.ae_title
    return None


def _is_own(host: str, own: str) -> bool:
    """Whether a host of `scp.allowed_peers` is this machine, as the receiver sees it when it is asked at `own`."""
    network = network_of(host)
    try:
        return host == "localhost" if network is None else ipaddress.ip_address(own) in network
    except ValueError:
        return False


def _address(settings: Settings) -> str:
    """The address of this machine at which the receiver is asked."""
    return _reachable(settings.scp.listening_host)


def _reachable(host: str) -> str:
    """The address at which what listens on `host` is reached from this machine."""
    try:
        if ipaddress.ip_address(host).is_unspecified:
            return "::1" if ":" in host else "127.0.0.1"
    except ValueError:
        return "127.0.0.1" if host == "localhost" else host
    return host


def _ask(settings: Settings, caller: str, tls: TlsSettings | None) -> EchoResult:
    scp = settings.scp
    peer = DestinationSettings(name="own", ae_title=scp.ae_title, host=_address(settings), port=scp.port, tls=tls)
    return StorageScu(peer, caller, SHORT).echo()


def _echoed(settings: Settings, answer: EchoResult, caller: str) -> Line:
    by = " by TLS" if settings.scp.tls else ""
    if answer.ok:
        found = f"{settings.scp.ae_title} answers {caller}{by} in {answer.latency_s * 1000:.0f} ms: {answer.detail}"
        return Line("own AE title", Mark.OK, found)
    return Line("own AE title", Mark.FAIL, answer.detail, "read the log of the receiver (`journalctl -u syncect`)")


# -- page ------------------------------------------------------------------------------------------------------


def page(settings: Settings) -> Lines:
    """Whether the page's port is ours, and whether the page answers."""
    web = settings.web
    if not web.enabled:
        yield Line("page", Mark.SKIP, "web.enabled = false: there is no status page")
        return
    views = running_processes(settings.node.data_dir / "run")
    place = web.address
    strangers = _listeners(web.port) - _tree(views)
    if strangers:
        yield from _taken("page", place, strangers, "web.port")
    elif not any(view.role == "web" for view in views):
        yield Line("page", Mark.WARN, f"{place}: the page does not run", "start `syncect serve`")
    else:
        yield _answers(web)


def page_users(node: Node) -> Lines:
    """Whether anybody may log in to the page."""
    web = node.settings.web
    if not web.enabled:
        yield Line("page users", Mark.SKIP, "web.enabled = false: there is no status page")
    elif node.users.any():
        yield Line("page users", Mark.OK, f"{len(node.users.all())} may log in")
    elif web.user_header:
        yield Line("page users", Mark.OK, f"a proxy says by {web.user_header} who asks")
    else:
        remedy = "`syncect users add NAME --role admin`, or set web.user_header"
        yield Line("page users", Mark.WARN, "nobody may log in to the page", remedy)


def _answers(web: WebSettings) -> Line:
    place, host = web.address, _reachable(web.host)
    connection = http.client.HTTPConnection(host, web.port, timeout=_HTTP_S)
    if web.tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it names no loopback address
        connection = http.client.HTTPSConnection(host, web.port, timeout=_HTTP_S, context=context)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        words = getattr(error, "strerror", None) or type(error).__name__
        return Line("page", Mark.FAIL, f"{place} does not answer: {words}", "read its log (`journalctl -u syncect`)")
    finally:
        connection.close()
    if status >= 500:
        found = f"{place}/healthz answers {status}"
        return Line("page", Mark.WARN, found, f"`curl {place}/healthz` prints what is wrong")
    return Line("page", Mark.OK, f"{place} answers")
