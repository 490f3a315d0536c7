"""The review of a result with its images: source, synthetic and difference, drawn here and never kept on a disk there.

A browser gets pictures and figures, never a DICOM file. What comes in from the network are numbers and names of a list.
"""

import threading
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from node.bootstrap.store import Node
from node.operate.texts import MAX_REASON, facts_text
from node.ops.audit import SEE_IMAGES
from node.translate.quality import DARKENED_HU
from node.web.access import CSRF_FIELD, ROLE_OF_VERB, Person, Role, audit, needs
from node.web.drawer import seen_of
from node.web.looks import Looks
from node.web.marks import doubtful_region, is_darkened, marks_of
from node.web.sides import sides_of
from node.web.templating import is_part, page
from node.web.tiles import DIFFERENCE_RANGES_HU, PRESETS, difference_png, grey_png, legend_png
from node.web.volumes import Images, ImageStack, NotShown, SliceFile, SlicePair, source_of, synthetic_of
from storage.cases import Case
from storage.errors import NotFound
from storage.states import JobState

router = APIRouter()

LAYERS: Final = ("source", "synthetic", "difference")
NO_STORE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_MAX_DIGITS: Final = 5
_TO_OPEN = threading.Lock()


@dataclass(frozen=True)
class View:
    """How slices are shown, as the address says it."""

    preset: str = "soft"
    range: str = "100"
    outline: str = ""

    def check(self) -> None:
        """Raise HTTPException 422, with a sentence that repeats nothing of what came in."""
        if self.preset not in PRESETS:
            raise HTTPException(422, f"preset is one of {', '.join(PRESETS)}.")
        if self.range not in map(str, DIFFERENCE_RANGES_HU):
            raise HTTPException(422, f"range is one of {', '.join(map(str, DIFFERENCE_RANGES_HU))} (HU).")
        if self.outline not in ("", "1"):
            raise HTTPException(422, "outline is 1, or is left out.")


def _view(preset: str = "soft", range: str = "100", outline: str = "") -> View:
    view = View(preset, range, outline)
    view.check()
    return view


_View = Annotated[View, Depends(_view)]


@dataclass(frozen=True)
class Seen:
    """One case at which somebody looks."""

    node: Node
    images: Images
    case: Case
    person: Person

    def stack(self) -> ImageStack:
        """Its images; raises HTTPException with the reason where there are none."""
        try:
            return self.images.stack(self.node, self.case)
        except NotShown as error:
            raise HTTPException(error.status, str(error)) from error


def _look(request: Request, case_id: str, person: Annotated[Person, Depends(needs(Role.VIEWER))]) -> Seen:
    """Find the case, and note that its images are looked at."""
    node: Node = request.app.state.node
    try:
        case = node.overview.case(case_id)
    except NotFound as error:
        raise HTTPException(404, "There is no such job.") from error
    images, looks = _of_the_process(request, node)
    looks.note(person.name, case.id, lambda: audit(request, SEE_IMAGES, case=case.id, study_uid=case.study_uid))
    return Seen(node, images, case, person)


_Seen = Annotated[Seen, Depends(_look)]


def _pair(seen: _Seen, number: str) -> SlicePair:
    stack = seen.stack()
    return stack.pairs[_number(number, stack) - 1]


_Pair = Annotated[SlicePair, Depends(_pair)]


@router.get("/cases/{case_id}/review")
def review(request: Request, seen: _Seen, view: _View, slice: str = "") -> Response:
    """The page of the viewer, or for htmx what of it goes into another page; it works without JavaScript too."""
    case, person = seen.case, seen.person
    context: dict[str, Any] = {"case": case, "person": person, "facts": facts_text(case.facts), "why": ""}
    context |= _decisions(case, person)
    try:
        stack = seen.images.stack(seen.node, case)
        number = _number(slice, stack) if slice else (len(stack.pairs) + 1) // 2
        context |= _shown(seen.images, stack, number) | _choices(case, view, number)
    except NotShown as error:
        context["why"] = str(error)
    name = "review_viewer.html" if is_part(request) else "review.html"
    answer = page(request, name, **context)
    answer.headers.update(NO_STORE)
    return answer


@router.get("/cases/{case_id}/slices.json")
def slices(seen: _Seen) -> Response:
    """How many slices there are, where they lie, what changed in each, and which are marked and why."""
    stack = seen.stack()
    figures = seen.images.survey(stack, DARKENED_HU)
    return _json(
        {
            "count": len(stack.pairs),
            "remark": stack.remark,
            "slices": [{"number": number, **asdict(one)} for number, one in enumerate(figures, start=1)],
            "marks": [asdict(mark) for mark in marks_of(seen.case, figures)],
        }
    )


@router.get("/cases/{case_id}/slices/{number}/{layer}.png")
def picture(seen: _Seen, pair: _Pair, layer: str, view: _View) -> Response:
    """One slice of one layer."""
    if layer not in LAYERS:
        raise HTTPException(404, f"There is no such picture; there are {', '.join(LAYERS)}.")
    try:
        with seen.images.turn():
            png = _drawn(seen, pair, layer, view)
    except NotShown as error:
        raise HTTPException(error.status, str(error)) from error
    return Response(png, media_type="image/png", headers=NO_STORE)


@router.get("/cases/{case_id}/slices/{number}/hu.json")
def hu(seen: _Seen, pair: _Pair, row: str = "", column: str = "") -> Response:
    """The HU of one pixel in the source and in the result; null where there is none. row, column: counted from 0."""
    y, x = _whole(row, "row"), _whole(column, "column")
    with seen.images.turn():
        files = {"source": pair.source, "synthetic": pair.synthetic}
        return _json({name: _hu_at(seen.images, file, y, x) for name, file in files.items()})


@router.get("/review/legend.png", dependencies=[Depends(needs(Role.VIEWER))])
def legend() -> Response:
    """The colours of a difference, from the lowest to the highest."""
    return Response(legend_png(), media_type="image/png", headers=NO_STORE)


def _hu_at(images: Images, file: SliceFile | None, row: int, column: int) -> float | None:
    try:
        values = images.slice(file).hu if file else None
    except NotShown:
        return None
    if values is None or row >= values.shape[0] or column >= values.shape[1]:
        return None
    return float(values[row, column])


def _of_the_process(request: Request, node: Node) -> tuple[Images, Looks]:
    """All who look share one bound of memory, and one record of who looked."""
    state = request.app.state
    with _TO_OPEN:
        if not hasattr(state, "review"):
            state.review = (Images(node.spool.path, fetch=node.spool.fetch), Looks())
    images, looks = state.review
    return images, looks


def _number(text: str, stack: ImageStack) -> int:
    number = _whole(text, "the number of a slice")
    if not 1 <= number <= len(stack.pairs):
        raise HTTPException(404, f"There is no such slice; there are 1 to {len(stack.pairs)}.")
    return number


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise HTTPException(422, f"{name} is a whole number of at most {_MAX_DIGITS} digits.")
    return int(text)


def _drawn(seen: Seen, pair: SlicePair, layer: str, view: View) -> bytes:
    """The PNG of one layer; raises NotShown."""
    images, case = seen.images, seen.case
    if layer == "difference":
        change_hu, source = images.difference(pair)
        region = doubtful_region(case, change_hu) if view.outline else None
        return difference_png(change_hu, float(view.range), spacing_mm=source.spacing_mm or (1.0, 1.0), outline=region)
    shown = images.slice(source_of(pair) if layer == "source" else synthetic_of(pair))
    both = pair.source is not None and pair.synthetic is not None
    region = doubtful_region(case, images.difference(pair)[0]) if view.outline and both else None
    return grey_png(shown.hu, PRESETS[view.preset], spacing_mm=shown.spacing_mm or (1.0, 1.0), outline=region)


def _shown(images: Images, stack: ImageStack, number: int) -> dict[str, Any]:
    """What the page says of the slice that it begins with."""
    pair = stack.pairs[number - 1]
    facts: dict[str, Any] = {"rows": 0, "columns": 0, "z_mm": None, "sides": None}
    try:
        with images.turn():
            image = images.slice(pair.synthetic or source_of(pair))
        rows, columns = image.hu.shape
        sides = sides_of(image.orientation) if image.orientation else None
        facts = {"rows": rows, "columns": columns, "z_mm": image.z_mm, "sides": sides}
    except NotShown as error:
        facts["slice_why"] = str(error)
    layers = LAYERS if any(one.synthetic for one in stack.pairs) else LAYERS[:1]
    return {"layers": layers, "count": len(stack.pairs), "number": number, "remark": stack.remark, **facts}


def _choices(case: Case, view: View, number: int) -> dict[str, Any]:
    """What a person can choose, and the addresses of the pages before and after."""
    asked = {key: value for key, value in asdict(view).items() if value}
    return {
        "view": view,
        "presets": PRESETS,
        "ranges": DIFFERENCE_RANGES_HU,
        "can_outline": is_darkened(case),
        "picture_query": urlencode(asked),
        "link_query": [urlencode({**asked, "slice": number + step}) for step in (-1, 1)],
    }


def _decisions(case: Case, person: Person) -> dict[str, Any]:
    """Which buttons there are: only for what is HELD, and for whom may press them."""
    held = case.job_id is not None and case.state == JobState.HELD
    may = {verb: held and person.role >= ROLE_OF_VERB[verb] for verb in ("release", "reject")}
    has_doubt = case.job_state == JobState.HELD  # else a delivery is held, and there is nothing to reject
    return {
        "may_release": may["release"] and case.product_dir is not None,
        "may_reject": may["reject"] and has_doubt,
        "csrf_field": CSRF_FIELD,
        "max_reason": MAX_REASON,
        "decided_on": seen_of(case),
    }


def _json(value: dict[str, Any]) -> Response:
    return JSONResponse(value, headers=NO_STORE)
