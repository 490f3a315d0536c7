"""Promises of what methods are made of: losses with known values, replay, learning rates, averages, own randomness."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.diffusion import DiffusionConfig, make_schedule, posterior_sample, posterior_sample_each
from models.losses import (
    l1,
    least_squares,
    least_squares_per_image,
    logistic_fake,
    logistic_real,
    r1_penalty,
)
from models.methods.optimisation import GENERATORS, Parts, Regime, seeded
from models.methods.replay import ReplayPool


def assert_close(a: torch.Tensor | None, b: torch.Tensor, *, atol: float = 1e-5) -> None:
    assert a is not None
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-5, atol=atol)


def test_losses_of_known_logits() -> None:
    logits = torch.tensor([[1.0, -1.0], [3.0, 1.0]])
    assert logistic_real(torch.zeros(3)) == logistic_fake(torch.zeros(3)) == pytest.approx(math.log(2))
    assert logistic_real(torch.tensor(2.0)) == pytest.approx(math.log(1 + math.exp(-2)))
    bce = nn.functional.binary_cross_entropy_with_logits
    assert_close(logistic_fake(logits), bce(logits, torch.zeros(2, 2)))
    assert least_squares(logits, 1.0) == pytest.approx((0 + 4 + 4 + 0) / 4)
    assert least_squares_per_image(logits, 1.0) == pytest.approx((1 + 1) / 2)
    assert l1(torch.ones(2), torch.tensor([0.0, 3.0])) == pytest.approx(1.5)


def test_r1_is_the_mean_squared_gradient_of_each_image_and_can_be_descended() -> None:
    x = torch.randn(3, 1, 4, 4, requires_grad=True)
    weight = torch.tensor(2.0, requires_grad=True)
    penalty = r1_penalty((weight * x.square()).sum(dim=(1, 2, 3)), x)
    assert_close(penalty, (4 * x).square().sum(dim=(1, 2, 3)).mean())
    penalty.backward()
    assert_close(weight.grad, penalty.detach())  # d (w^2 c) / d w = 2 w c, and w is 2


def test_posterior_has_the_published_coefficients_and_ends_in_x_0() -> None:
    schedule = make_schedule(DiffusionConfig())
    t = torch.arange(4)
    one, none = torch.ones(4, 1, 1, 1), torch.zeros(4, 1, 1, 1)
    c1, c2, sd = (
        posterior_sample_each(schedule, *parts[:2], t, parts[2]).flatten()
        for parts in ((one, none, none), (none, one, none), (none, none, one))
    )
    assert c1.tolist() == pytest.approx([1, 0.665778, 0.269191, 0.057822], abs=1e-6)
    assert c2.tolist() == pytest.approx([0, 0.201576, 0.193001, 0.111852], abs=1e-6)
    assert sd.square().tolist() == pytest.approx([0, 0.440819, 0.884202, 0.984061], abs=1e-6)
    x_0, x_next, noise = torch.randn(3, 4, 1, 2, 2)
    each = posterior_sample_each(schedule, x_0, x_next, t, noise)
    for k in range(4):
        assert_close(each[k], posterior_sample(schedule, x_0[k], x_next[k], k, noise[k]))
    assert torch.equal(each[0], x_0[0])


def test_replay_gives_new_fakes_until_full_then_half_old_ones() -> None:
    pool = ReplayPool(4)
    fakes = torch.arange(400.0).reshape(400, 1, 1, 1)
    with seeded(1):
        assert torch.equal(pool.exchange(fakes[:4]), fakes[:4])
        shown = pool.exchange(fakes[4:]).flatten()
    assert len(pool) == 4
    old = shown != fakes[4:].flatten()
    assert 0.4 < old.float().mean() < 0.6
    assert (shown[old] < fakes[4:].flatten()[old]).all()
    assert len(set(shown.tolist())) == len(shown)  # what was handed out is gone from the pool


def test_replay_never_leads_gradients_back_and_size_0_keeps_nothing() -> None:
    fake = torch.ones(2, 1, 1, 1, requires_grad=True) * 2
    assert not ReplayPool(3).exchange(fake).requires_grad
    none = ReplayPool(0)
    assert torch.equal(none.exchange(fake), fake)
    assert len(none) == 0


def test_learning_rates_follow_the_published_plans() -> None:
    linear = Regime(epochs=200, decay="linear")
    assert [linear.rate_at(2e-4, e, 0) for e in (0, 99.9)] == [2e-4, 2e-4]
    assert linear.rate_at(2e-4, 199, 0) == pytest.approx(2e-4 / 101)
    assert linear.rate_at(2e-4, 150.9, 0) == linear.rate_at(2e-4, 150, 0)  # one stair an epoch
    cosine = Regime(epochs=500, decay="cosine", final_lr=1e-5)
    assert [cosine.rate_at(1.6e-4, e, 0) for e in (0, 250, 500, 900)] == pytest.approx([1.6e-4, 8.5e-5, 1e-5, 1e-5])
    assert cosine.rate_at(1.6e-4, 250, 0) > cosine.rate_at(1.6e-4, 250.5, 0) > cosine.rate_at(1.6e-4, 251, 0)
    assert Regime().rate_at(3e-4, 77, 0) == 3e-4


def test_a_warm_up_rises_linearly_to_the_plan() -> None:
    warm = Regime(epochs=10, decay="cosine", warmup_steps=4)
    assert [warm.rate_at(1.0, 0, step) for step in (0, 1, 3, 4)] == pytest.approx([0.25, 0.5, 1.0, 1.0])
    assert warm.rate_at(1.0, 5, 1) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"crop": 128, "crop_share": 1.5}, "crop_share"),
        ({"crop": 0}, "crop is 0"),
        ({"crop_batch": 0}, "crop_batch"),
        ({"crop_share": 0.5}, "crop_share"),
    ],
)
def test_a_regime_that_no_run_can_follow_is_refused(changes: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Regime(**changes)  # type: ignore[arg-type]


def two_parts(**changes: object) -> Parts:
    def networks() -> dict[str, nn.Module]:
        return {"g": nn.Linear(1, 1), "d": nn.Linear(1, 1)}

    return Parts(Regime(**changes), networks, {GENERATORS: ["g"], "discriminators": ["d"]}, averaged=["g"])  # type: ignore[arg-type]


def weight_of(network: nn.Module) -> float:
    return float(network.state_dict()["weight"])


def test_both_learning_rates_are_set_for_the_step_ahead() -> None:
    parts = two_parts(lr_generator=2.0, lr_discriminator=1.0, epochs=2, decay="cosine", warmup_steps=10)
    for step, share in ((4, 0.5), (99, 1.0)):
        parts.set_rates(1.0, step)
        rates = [o.param_groups[0]["lr"] for o in parts.optimisers.values()]
        assert rates == pytest.approx([share * 1.0, share * 0.5])


def test_averages_start_at_the_first_step_and_follow_with_the_decay() -> None:
    parts = two_parts(lr_generator=0.1, ema_decay=0.9)
    seen = []
    for step in range(3):
        with parts.step(step):
            parts.descend(GENERATORS, {"x": parts.networks["g"](torch.ones(1, 1)).square().sum()})
        seen.append(weight_of(parts.networks["g"]))
    expected = 0.9 * (0.9 * seen[0] + 0.1 * seen[1]) + 0.1 * seen[2]
    assert weight_of(parts.final("g")) == pytest.approx(expected, rel=1e-5)
    assert Regime(ema_decay=0.999, ema_young=True).average_decay(2) == pytest.approx(3 / 12)


def test_frozen_groups_get_no_gradient_but_let_it_through() -> None:
    parts = two_parts()
    with parts.frozen("discriminators"):
        parts.networks["d"](parts.networks["g"](torch.ones(1, 1))).sum().backward()
    assert all(p.grad is None for p in parts.parameters_of("discriminators"))
    assert all(p.grad is not None for p in parts.parameters_of(GENERATORS))
    assert all(p.requires_grad for p in parts.parameters_of("discriminators"))


def test_a_steps_randomness_is_its_own_and_leaves_torchs_alone() -> None:
    parts = two_parts(seed=5)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    draws = []
    for step in (0, 1, 0):
        with parts.step(step):
            draws.append(torch.rand(3))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_a_foreign_checkpoint_is_refused() -> None:
    state = two_parts().state_dict()
    with pytest.raises(ValueError, match="averages"):
        two_parts(ema_decay=0.9).load_state_dict(state)
