"""Every line of the node has the name of an event, and docs/operate/logs.md has all of them."""

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import node
from node.ops.log_lines import IDS, NO_EVENT

ROOT = Path(__file__).parents[4]
PRODUCT = Path(node.__file__).parents[1]  # where it is installed: beside these tests, or not
TEXT = (ROOT / "docs" / "operate" / "logs.md").read_text(encoding="utf-8")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call of a logger, and where it stands."""
    for package in ("config", "models", "node", "storage"):
        for path in sorted((PRODUCT / package).rglob("*.py")):
            for one in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in LEVELS:
                    owner = ast.unparse(one.func.value)
                    if owner == "log" or "getLogger" in owner:
                        yield f"{path.relative_to(PRODUCT)}:{one.lineno}", one


def extra(call: ast.Call) -> dict[str, ast.expr]:
    """What a call hands over, by the names of the fields; `**ids` adds fields of IDS only."""
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "extra"), None)
    if not isinstance(given, ast.Dict):
        return {}
    pairs = zip(given.keys, given.values, strict=True)
    return {str(key.value): value for key, value in pairs if isinstance(key, ast.Constant)}


def names(value: ast.expr) -> set[str]:
    """The events that a call can have; more than one where a condition chooses."""
    if isinstance(value, ast.IfExp):
        return names(value.body) | names(value.orelse)
    return {str(value.value)} if isinstance(value, ast.Constant) else set()


GIVEN = {where: extra(call) for where, call in calls()}
EVENTS = {where: names(fields["event"]) if "event" in fields else set() for where, fields in GIVEN.items()}


def test_the_scan_finds_the_calls() -> None:
    assert len(EVENTS) > 100
    assert {"series_complete", "job_claimed", "job_held", "instance_refused"} <= set().union(*EVENTS.values())


def test_every_call_names_its_event() -> None:
    unnamed = [where for where, found in EVENTS.items() if not found]
    assert unnamed == []
    assert [name for found in EVENTS.values() for name in found if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


def test_every_field_that_a_call_hands_over_is_written() -> None:
    lost = [(where, key) for where, fields in GIVEN.items() for key in fields if key not in ("event", *IDS)]
    assert lost == []


def test_no_field_has_a_name_that_logging_uses_itself() -> None:
    assert set(IDS) & set(vars(logging.makeLogRecord({}))) == set()


def test_the_documents_have_every_event_and_no_other() -> None:
    _, _, table = TEXT.partition("\n## Events\n")
    documented = re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)
    by_the_log_itself = {NO_EVENT, "log_lines_lost", "log_file_failed"}
    assert sorted(documented) == sorted(set().union(*EVENTS.values()) | by_the_log_itself)


def test_the_documents_have_every_field() -> None:
    assert [key for key in IDS if f"`{key}`" not in TEXT] == []
