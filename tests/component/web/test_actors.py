"""The name under which a person decides fits where it is kept."""

import pytest

from node.web.actors import actor_of


@pytest.mark.parametrize(
    ("name", "full_name", "actor"),
    [
        ("anna", "Dr. Anna Muster", "operator Dr. Anna Muster (anna)"),
        ("anna", "", "operator anna"),
        ("anna", "anna", "operator anna"),
        ("anna", "Dr.\nAnna\tMuster ", "operator Dr. Anna Muster (anna)"),
        ("анна", "Анна Müller", "operator Анна Müller (анна)"),
    ],
)
def test_the_full_name_comes_first(name: str, full_name: str, actor: str) -> None:
    assert actor_of(name, full_name) == actor


@pytest.mark.parametrize(("name", "full_name"), [("anna", "M" * 200), ("n" * 64, "M" * 64), ("n" * 200, "M" * 3)])
def test_the_login_name_is_kept_before_the_full_one(name: str, full_name: str) -> None:
    actor = actor_of(name, full_name)
    assert len(actor) <= 80
    assert name[:71] in actor
