"""The pages: what arrived, what became of it, and what a person does next."""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from node.operate.situation import facts, health_of

router = APIRouter()


@router.get("/")
def front(request: Request) -> PlainTextResponse:
    """How the node is."""
    node = request.app.state.node
    return PlainTextResponse(health_of(node, facts(node)).headline + "\n")
