"""The networks have the published numbers of parameters."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from torch.overrides import TorchFunctionMode

from models.networks.discriminators import PatchGan, PatchGanConfig, TimeDiscriminator, TimeDiscriminatorConfig
from models.networks.registration import RegistrationConfig, RegistrationNetwork
from models.networks.resnet import ResnetConfig, ResnetGenerator
from models.networks.unet import UnetConfig, UnetGenerator


class WithoutInitialisation(TorchFunctionMode):
    """Leaves fresh weights as they are: only their number counts here, and there are a hundred million."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (lambda: ResnetGenerator(ResnetConfig(blocks=6)), 7.83),
        (lambda: ResnetGenerator(ResnetConfig()), 11.37),
        (lambda: UnetGenerator(UnetConfig()), 54.41),
        (lambda: PatchGan(PatchGanConfig()), 2.76),
        (lambda: TimeDiscriminator(TimeDiscriminatorConfig()), 27.74),
        (lambda: RegistrationNetwork(RegistrationConfig()), 2.06),
    ],
    ids=["resnet6", "resnet9", "unet256", "patchgan", "time_discriminator", "registration"],
)
def test_published_configurations_have_the_published_number_of_parameters(
    build: Callable[[], nn.Module], millions: float
) -> None:
    with WithoutInitialisation():
        network = build()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
