"""How pages are made from templates: everything is escaped, and a name that a template misspells is an error."""

import re
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from node.operate.texts import age, local_time
from node.web.access import CSRF_FIELD

_COMMAND: Final = re.compile(r"`([^`]+)`")
_FILES: Final = FileSystemLoader(Path(__file__).with_name("templates"))


def coded(text: str) -> Markup:
    """A sentence in which what stands between backticks is shown as a command."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it is escaped


def _moment(at: datetime | None, zone: tzinfo | None) -> str:
    return local_time(at, zone) if at is not None else ""


def _environment() -> Environment:
    made = Environment(loader=_FILES, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"coded": coded, "moment": _moment, "age": age}
    made.globals |= {"CSRF_FIELD": CSRF_FIELD}
    return made


_TEMPLATES: Final = Jinja2Templates(env=_environment())


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """The answer that a template makes; each page names the node, for a department may have a second one for tests."""
    context |= {"ae_title": request.app.state.node.settings.scp.ae_title}
    return _TEMPLATES.TemplateResponse(request, template, context, status_code=status)


def sentence(request: Request, text: str, status: int) -> Response:
    """One sentence about what went wrong: a page for a browser, a line for anything else."""
    if "text/html" not in request.headers.get("accept", "") or is_part(request):
        return PlainTextResponse(f"{text}\n", status)
    title = {403: "Not allowed", 404: "Not found", 422: "Not understood"}.get(status, "It did not work")
    return page(request, "said.html", status, title=title, text=text)


def is_part(request: Request) -> bool:
    """Whether a script of the page asks, which wants a part to put in, not a whole page."""
    return "hx-request" in request.headers
