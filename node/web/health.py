"""What a monitoring system asks: whether the page answers, whether the node is ready, and its metrics."""

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from node.bootstrap.store import Node
from node.operate.measured import make_collector
from node.operate.situation import essentials, health_of
from node.ops.health import Health, down
from node.web.access import needs_monitor
from storage.errors import StorageError

router = APIRouter(dependencies=[Depends(needs_monitor)])


@router.get("/healthz")
def healthz() -> PlainTextResponse:
    """200 where this process answers; it says nothing of the others."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
def readyz(request: Request) -> Response:
    """200 where the node takes images, 503 where it does not; why, as text, or as JSON where that is asked for."""
    health = _health(request.app.state.node)
    status = 200 if health.takes_images else 503
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"state": health.state, "reasons": health.reasons}, status)
    return PlainTextResponse(f"{health.headline}\n", status)


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """All metrics, in the text format of Prometheus, or as OpenMetrics where that is asked for."""
    state = request.app.state
    if not hasattr(state, "metrics"):  # the collector remembers what costs time to count
        state.metrics = CollectorRegistry()
        state.metrics.register(make_collector(state.node))
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(state.metrics), media_type=None, headers={"Content-Type": kind})


def _health(node: Node) -> Health:
    try:
        return health_of(node, essentials(node))
    except StorageError as error:
        return down([str(error)])
    except OSError as error:
        return down([f"{error.filename or 'the disk'}: {error.strerror or 'cannot be read'}"])
