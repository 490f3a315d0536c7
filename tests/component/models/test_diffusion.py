"""Promises of the noise schedule: the published coefficients, and a last step that returns x_0."""

import numpy as np
import pytest
import torch

from models.diffusion import DiffusionConfig, forward_pair, make_schedule, posterior_sample, reverse_sample

SCHEDULE = make_schedule(DiffusionConfig())


def test_four_steps_have_the_published_coefficients() -> None:
    np.testing.assert_allclose(SCHEDULE.beta, [1e-8, 0.478255, 0.849206, 0.956418, 0.987404], atol=5e-7)
    np.testing.assert_allclose(SCHEDULE.signal, [1.0, 0.722319, 0.280492, 0.058557, 0.006572], atol=5e-7)
    np.testing.assert_allclose(SCHEDULE.noise, [1e-4, 0.691560, 0.959856, 0.998284, 0.999978], atol=5e-7)
    np.testing.assert_allclose(SCHEDULE.c1, [1, 0.665778, 0.269191, 0.057822], atol=5e-7)
    np.testing.assert_allclose(SCHEDULE.c2, [0, 0.201576, 0.193001, 0.111852], atol=5e-7)
    np.testing.assert_allclose(SCHEDULE.variance, [0, 0.440819, 0.884202, 0.984061], atol=5e-7)


def test_forward_pair_has_the_moments_of_the_process() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.full((4, 1, 96, 96), 0.5)
    e_1, e_2 = (torch.randn(x_0.shape, generator=generator) for _ in range(2))
    x_t, x_next = forward_pair(SCHEDULE, x_0, torch.arange(4), e_1, e_2)
    for t in range(4):
        assert float(x_t[t].mean()) == pytest.approx(0.5 * SCHEDULE.signal[t], abs=0.03)
        assert float(x_next[t].mean()) == pytest.approx(0.5 * SCHEDULE.signal[t + 1], abs=0.03)
        assert float(x_next[t].std()) == pytest.approx(SCHEDULE.noise[t + 1], abs=0.03)


def test_posterior_inverts_the_forward_process_on_average() -> None:
    """Where x_0 is known, E[x_t] under the posterior of a drawn x_{t+1} is the forward mean of x_t."""
    noiseless_next = torch.full((1, 1, 4, 4), 0.3 * float(SCHEDULE.signal[3]))
    x_t = posterior_sample(SCHEDULE, torch.full((1, 1, 4, 4), 0.3), noiseless_next, 2, torch.zeros(1, 1, 4, 4))
    assert float(x_t.mean()) == pytest.approx(0.3 * SCHEDULE.signal[2], rel=1e-4)


def test_sampler_uses_noise_from_the_last_step_down_and_returns_the_last_estimate() -> None:
    seen: list[tuple[int, float]] = []

    def predict(x: torch.Tensor, t: int, z: torch.Tensor) -> torch.Tensor:
        seen.append((t, float(z)))
        return torch.full_like(x, float(t) + 0.5)

    z = torch.tensor([10.0, 11.0, 12.0, 13.0])[:, None, None]
    result = reverse_sample(SCHEDULE, predict, torch.zeros(1, 1, 2, 2), z, torch.ones(4, 1, 1, 2, 2))
    assert seen == [(3, 10.0), (2, 11.0), (1, 12.0), (0, 13.0)]
    assert (result == 0.5).all()


@pytest.mark.parametrize("values", [{"num_timesteps": 0}, {"beta_min": 30.0}, {"sigma": 1}])
def test_impossible_schedules_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        DiffusionConfig.from_mapping(values)
