"""A constancy run through a whole node: its phantom reaches the test destination, and no other."""

from pathlib import Path
from typing import Any

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from node.operate.constancy import phantom
from node.operate.constancy.run import Order, destination_of, run_through_node, sound_card
from tests.slice.harness import StoreScp


def test_the_phantom_goes_through_the_node_to_the_test_destination_alone(
    node_at: Any, tps: StoreScp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phantom, "SIZE", phantom.Size(slices=8, rows=96))
    monkeypatch.delenv("SYNCECT_CONFIG", raising=False)
    test = StoreScp(tmp_path / "test", ae_title="TEST").start()
    try:
        node = node_at(tps, test, extra='constancy_days = 1\noutside_envelope = "warn"')
        node.config.write_text(node.config.read_text() + 'receives = "constancy"\n')
        node.start()
        with open_store(load_settings(node.config)) as opened:
            view = run_through_node(Order(opened, sound_card(opened), lambda _words: None), destination_of(opened, ""))
    finally:
        test.kill()
    assert (view.way, view.destination, view.bundle.split()[0]) == ("node", "test", "tiny")
    assert len(test.files()) == 8
    assert tps.files() == []
    assert (view.figures["moved_slices"], view.figures["changed_outside_voxels"]) == (0, 0)
    assert 0 < view.figures["result_s"] < view.figures["sent_s"]
    assert view.environment["arithmetic"].startswith("cpu ")
    # The random weights of the bundle make nothing better; all else is in order.
    assert view.reason.startswith("how much nearer to the truth the result is than the scan: -")
    assert ";" not in view.reason.removesuffix("; tolerance at least 0 HU")
