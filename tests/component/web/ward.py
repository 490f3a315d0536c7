"""The whole page over a store with series, visitors of every role, and a look at the HTML that they get."""

from html.parser import HTMLParser

from starlette.testclient import TestClient

from node.web.access import Role
from node.web.app import make_app
from node.web.passwords import hash_password
from tests.component.web.conftest import PASSWORD, form_of, log_in
from tests.departments import START, Department

_HASH = hash_password(PASSWORD)
_VOID = {"meta", "link", "input", "br", "img", "hr"}
PART = {"hx-request": "true"}


class Visitor:
    """A person with a browser, who is logged in; every answer with HTML is looked at."""

    def __init__(self, browser: TestClient) -> None:
        self.browser = browser
        self.csrf = browser.get("/").text.split('name="csrf" value="')[1].split('"')[0]

    def get(self, path: str, *, status: int = 200, part: bool = False, **query: str) -> str:
        answer = self.browser.get(path, params=query or None, headers=PART if part else {})
        return _checked(answer, status)

    def post(self, path: str, *, status: int = 200, part: bool = True, **fields) -> str:
        fields = {name.rstrip("_"): value for name, value in fields.items()}
        answer = self.browser.post(path, data={"csrf": self.csrf, **fields}, headers=PART if part else {})
        return _checked(answer, status)


class Ward:
    """The page of a department."""

    def __init__(self, department: Department) -> None:
        self.department, self.node, self.app = department, department.node, make_app(department.node)

    def visitor(self, role: Role = Role.VIEWER, *, full_name: str = "") -> Visitor:
        """Somebody with this role, who is called as the role."""
        self.node.users.add(str(role), full_name or f"Dr. {role.title()}", role, _HASH, START)
        browser = TestClient(self.app, "http://localhost:8042", headers={"accept": "text/html"}, follow_redirects=False)
        assert form_of(browser)
        assert log_in(browser, str(role)).status_code == 303
        return Visitor(browser)

    def audited(self) -> list[tuple[str, str, str, str]]:
        """Who did what about which case, and with which outcome, the oldest first, without logins."""
        entries = reversed(self.node.audit.newest())
        return [(e.who, e.action, e.case_id, e.outcome) for e in entries if e.action != "login"]


def _checked(answer, status: int) -> str:
    assert answer.status_code == status, answer.text
    if answer.headers.get("content-type", "").startswith("text/html"):
        check_html(answer.text)
    return str(answer.text)


class _Strict(HTMLParser):
    """Raises where tags do not fit each other, an id or an attribute comes twice, or script or style stands inline."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag, attrs) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, attrs)
        assert "style" not in names
        assert not [name for name in names if name.startswith("on") or name.startswith("hx-on")], attrs
        found = dict(attrs)
        assert tag != "style"
        assert tag != "script" or found.get("src", "").startswith("/static/")
        if "id" in found:
            assert found["id"] not in self.ids, found["id"]
            self.ids.add(found["id"])
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open, tag
        assert self.open.pop() == tag, (tag, self.open)


def check_html(text: str) -> None:
    """Raise AssertionError for HTML that a browser would have to mend."""
    parser = _Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
