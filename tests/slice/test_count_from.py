"""A node that asks an archive how many images a series has does not take a part of it for the whole."""

from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from tests.builders import make_series
from tests.slice.harness import Orthanc, RunningNode, StoreScp, push


def test_missing_end_slices_are_noticed_by_asking_an_archive(
    tmp_path: Path, node_at: Callable[..., RunningNode], orthanc: Orthanc, tps: StoreScp
) -> None:
    files = make_series(tmp_path / "scan", slices=12)
    assert push(orthanc.port, files).returncode == 0
    peer = f'{{ ae_title = "{orthanc.ae_title}", host = "127.0.0.1", port = {orthanc.port} }}'
    completion = f"quiet_s = 0.6\ngive_up_s = 4.0\ncount_from = {peer}"
    node = node_at(tps, completion=completion, extra='outside_envelope = "warn"').start()
    assert push(node.port, files[:10]).returncode == 0
    (case,) = node.wait_for_states("INCOMPLETE")
    assert case.reason == f"the peer {orthanc.ae_title} counts 12 images of this series, 10 arrived"
    assert case.patient_id == str(dcmread(files[0], stop_before_pixels=True).PatientID)
    assert push(node.port, files[10:]).returncode == 0
    node.wait_for_states("SENT")
    assert len(tps.files()) == 12
