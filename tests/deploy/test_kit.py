"""The checks of this folder can fail."""

import pytest

from tests.deploy.kit import unknown_command, unknown_variables


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("serve", ""),
        ("work --name gpu1", ""),
        ("--config node.toml jobs ls --state HELD", ""),
        ("--version", ""),
        ("jobs", "jobs"),
        ("jobs look", "look"),
        ("receiver", "receiver"),
        ("serve --name a", "--name"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, wrong: str) -> None:
    assert unknown_command(line.split()) == wrong


def test_a_variable_that_sets_nothing_is_found() -> None:
    text = "SYNCECT_CONFIG SYNCECT_SCP__PORT SYNCECT_SCP_PORT SYNCECT_SCP__POTR SYNCECT_WEB__TLS__CERTIFICATE"
    assert unknown_variables(text) == {"SYNCECT_SCP_PORT", "SYNCECT_SCP__POTR"}
