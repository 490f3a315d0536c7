"""The page as an application: who may enter, what there is to see, and what becomes of an error."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from node.bootstrap.store import Node
from node.operate.texts import NotUnderstood
from node.web import actions, health, pages, review, trends
from node.web.gate import guard
from node.web.pulse import beating
from node.web.templating import sentence
from storage.errors import NotFound, StorageError

STATIC: Final = Path(__file__).with_name("static")
_ROUTERS: Final = (health.router, pages.router, actions.router, review.router, trends.router)


def make_app(node: Node, breathe: Callable[[], object] = lambda: None) -> FastAPI:
    """The page of one node, opened to write. `breathe` is called about once a second by a thread that answers requests.

    Endpoints are plain functions, which Starlette runs in threads: the store is synchronous.
    """

    @asynccontextmanager
    async def living(_app: FastAPI) -> AsyncIterator[None]:
        async with beating(breathe):
            yield
        await run_in_threadpool(app.state.auditor.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=living)
    app.state.node = node
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for router in _ROUTERS:
        app.include_router(router)
    for kind, status in ((NotFound, 404), (NotUnderstood, 422), (StorageError, 503)):
        app.add_exception_handler(kind, _said(status))
    app.add_exception_handler(StarletteHTTPException, _http_error)
    guard(app, node)
    return app


def _said(status: int) -> Callable[[Request, Exception], Response]:
    """Answer with the error's own sentence."""
    return lambda request, error: sentence(request, str(error), status)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return sentence(request, str(error.detail), error.status_code)
