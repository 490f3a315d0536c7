"""Promises of a translator: native size kept, noise independent of batch and order, devices never swapped silently."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import DeviceFault, DeviceUnavailable, TranslationError, Translator, load_bundle
from models.frame import Frame
from models.testing import write_tiny_bundle
from models.translators.slicewise import Runtime, translate_slices
from models.translators.syndiff import SeriesNoise, SyndiffTranslator


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    path = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(path)
    return load_bundle(path)


def slices(count: int, rows: int = 64, columns: int = 64) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(20, 60, (count, rows, columns)).astype(np.float32)


def test_a_slice_alone_and_in_any_company_gives_the_same_bits(translator: Translator) -> None:
    hu = slices(5)
    together = translator.translate(hu, 11)
    for k in range(5):
        assert np.array_equal(translator.translate(hu[[k]], 11)[0], together[k])
    order = [3, 0, 4, 2, 1]
    assert np.array_equal(translator.translate(hu[order], 11), together[order])


def test_seed_decides_the_noise_and_reloading_changes_nothing(tmp_path: Path, translator: Translator) -> None:
    hu = slices(1)
    write_tiny_bundle(tmp_path)
    assert np.array_equal(load_bundle(tmp_path).translate(hu, 1), translator.translate(hu, 1))
    assert not np.array_equal(translator.translate(hu, 1), translator.translate(hu, 2))
    with pytest.raises(ValueError, match="non-negative"):
        translator.translate(hu, -1)


@pytest.mark.parametrize(("rows", "columns"), [(512, 512), (63, 64), (101, 57), (20, 90), (31, 31)])
def test_any_matrix_keeps_its_shape_and_stays_in_the_window(translator: Translator, rows: int, columns: int) -> None:
    hu = slices(1, rows, columns)
    predicted = translator.translate(hu, 0)
    assert predicted.shape == hu.shape
    assert predicted.dtype == np.float32
    assert predicted.min() >= -40
    assert predicted.max() <= 400
    assert 1 < np.abs(predicted - np.clip(hu, -40, 400)).max() <= 66


def test_a_network_at_identity_leaves_the_clipped_source(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, live=False)
    hu = slices(2, 50, 40)
    assert np.abs(load_bundle(tmp_path).translate(hu, 0) - np.clip(hu, -40, 400)).max() < 0.01


def test_progress_counts_slices(translator: Translator) -> None:
    seen: list[tuple[int, int]] = []
    translator.translate(slices(3), 0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_empty_series_is_empty_and_a_wrong_shape_is_refused(translator: Translator) -> None:
    assert translator.translate(slices(0), 0).shape == (0, 64, 64)
    with pytest.raises(ValueError, match="must be"):
        translator.translate(slices(1)[0], 0)


def test_a_prediction_that_is_not_finite_is_refused(translator: Translator) -> None:
    hu = slices(2)
    hu[1, 5, 5] = np.nan
    with pytest.raises(TranslationError, match="slices 1 to 1"):
        translator.translate(hu, 0)


def test_translating_leaves_torch_as_it_was(tmp_path: Path, translator: Translator) -> None:
    write_tiny_bundle(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_bundle(tmp_path).translate(slices(1), 0)
    assert torch.rand(1) == expected
    assert torch.is_grad_enabled()


def test_sample_replays_given_noise_per_slice(translator: Translator) -> None:
    assert isinstance(translator, SyndiffTranslator)
    rng = np.random.default_rng(0)
    source = rng.uniform(-1, 1, (2, 1, 32, 32)).astype(np.float32)
    shapes = ((2, 1, 32, 32), (4, 2, 4), (4, 2, 1, 32, 32))
    x_T, z, noise = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    both = translator.sample(source, x_T, z, noise)
    second = translator.sample(source[1:], x_T[1:], z[:, 1:], noise[:, 1:])
    assert both.shape == (2, 1, 32, 32)
    np.testing.assert_allclose(both[1:], second, atol=1e-5)
    assert np.abs(translator.sample(source, x_T + 1, z, noise) - both).max() > 1e-4


def test_noise_comes_from_a_stream_that_is_the_same_everywhere() -> None:
    noise = SeriesNoise.from_seed(7, num_timesteps=4, nz=3, matrix=8)
    expected = np.random.Generator(np.random.Philox(7)).standard_normal((1, 1, 8, 8), dtype=np.float32)
    assert np.array_equal(noise.x_T, expected)
    assert (noise.z.shape, noise.posterior_noise.shape) == ((4, 1, 3), (4, 1, 1, 8, 8))


def test_a_missing_gpu_is_an_error_and_auto_says_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_bundle(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(DeviceUnavailable, match="no usable GPU"):
        load_bundle(tmp_path, device="cuda")
    auto = load_bundle(tmp_path, device="auto", precision="auto")
    assert (auto.device, auto.precision) == ("cpu", "fp32")
    capability = torch.backends.cpu.get_cpu_capability()
    assert auto.description == f"tiny 0 (syndiff_paired, 4 steps) on cpu {capability}, fp32"
    assert auto.arithmetic.endswith("fp32, engine 1")


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16"])
def test_auto_takes_bf16_where_the_processor_computes_it(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert Runtime.choose("auto", "auto", None).precision == "bf16"
    assert Runtime.choose("auto", "fp32", None).precision == "fp32"


def test_bf16_that_a_processor_imitates_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_bundle(tmp_path)
    half = load_bundle(tmp_path, precision="bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert half.description.endswith("bf16 (imitated: slower than fp32 here)")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert half.description.endswith("bf16")


def test_too_little_memory_halves_the_batch_says_so_and_makes_the_whole_series_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runtime, sizes = Runtime("cpu", "fp32", 8), []

    def predict(source: torch.Tensor) -> torch.Tensor:
        sizes.append(len(source))
        if len(source) > 2 and len(sizes) > 1:
            raise torch.OutOfMemoryError("as CUDA says it")
        return source

    hu = slices(11)
    result = translate_slices(hu, Frame((-40.0, 400.0), 32), runtime, predict)
    assert sizes == [8, 3, 4, 2, 2, 2, 2, 2, 1]
    assert runtime.batch_size == 2
    assert np.array_equal(result, np.clip(hu, -40, 400))
    assert "2 slices at once" in caplog.text


def test_memory_that_a_failed_batch_held_is_free_while_its_error_is_handled() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def predict(source: torch.Tensor) -> torch.Tensor:
        activations = source * 2
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("as CUDA says it")

    with pytest.raises(DeviceFault) as caught:
        translate_slices(slices(1), Frame((-40.0, 400.0), 32), Runtime("cpu", "fp32", 1), predict)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert [kept() for kept in held] == [None]


def test_slices_without_a_pixel_in_the_window_do_not_run() -> None:
    hu, seen, counted = slices(5), [], []
    hu[[0, 3]] = np.where(np.arange(64) % 2, -1000.0, 1200.0)  # air and metal

    def predict(source: torch.Tensor) -> torch.Tensor:
        seen.append(len(source))
        return torch.ones_like(source)

    window = Frame((-40.0, 400.0), 32)
    runtime = Runtime("cpu", "fp32", 2)
    result = translate_slices(hu, window, runtime, predict, progress=lambda *counts: counted.append(counts))
    assert (seen, counted) == ([2, 1], [(4, 5), (5, 5)])
    assert np.array_equal(result[[0, 3]], np.clip(hu[[0, 3]], -40, 400))
    assert (result[[1, 2, 4]] > np.clip(hu[[1, 2, 4]], -40, 400) + 1).any(axis=(1, 2)).all()


def test_a_single_slice_that_does_not_fit_is_an_error() -> None:
    def predict(source: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("as CUDA says it")

    with pytest.raises(DeviceFault, match="out of memory: as CUDA says it"):
        translate_slices(slices(2), Frame((-40.0, 400.0), 32), Runtime("cpu", "fp32", 1), predict)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered\nadvice"), DeviceFault),
        (torch.AcceleratorError("unspecified launch failure"), DeviceFault),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), DeviceFault),
        (MemoryError(), DeviceFault),
        (RuntimeError("shapes do not match"), RuntimeError),
    ],
)
def test_what_a_device_reports_is_told_from_other_errors(error: Exception, raised: type[Exception]) -> None:
    def predict(source: torch.Tensor) -> torch.Tensor:
        raise error

    runtime = Runtime("cpu", "fp32", 4)
    with pytest.raises(raised) as caught:
        translate_slices(slices(2), Frame((-40.0, 400.0), 32), runtime, predict)
    assert type(caught.value) is raised
    assert "advice" not in str(caught.value) or raised is RuntimeError
    assert runtime.batch_size == 4, "only memory that is too small is a reason for a smaller batch"


def test_bf16_stays_near_fp32(tmp_path: Path, translator: Translator) -> None:
    write_tiny_bundle(tmp_path)
    half = load_bundle(tmp_path, precision="bf16")
    assert half.precision == "bf16"
    difference = np.abs(half.translate(slices(1), 0) - translator.translate(slices(1), 0))
    assert 0 < difference.mean() < 1


def test_translation_asks_cudnn_for_repeatable_float32_and_leaves_its_settings_as_they_were() -> None:
    names, seen = ("allow_tf32", "benchmark", "deterministic"), []

    def settings() -> list[bool]:
        return [getattr(torch.backends.cudnn, name) for name in names]

    def predict(source: torch.Tensor) -> torch.Tensor:
        seen.append(settings())
        return source

    before = settings()
    translate_slices(slices(1), Frame((-40.0, 400.0), 32), Runtime("cpu", "fp32", 1), predict)
    assert seen == [[False, False, True]]
    assert settings() == before
