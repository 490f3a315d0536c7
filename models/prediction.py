"""How a network's output becomes a predicted image: the one formula that training and translation share."""

from typing import Protocol

from torch import Tensor


class Prediction(Protocol):
    """What a card and a method's configuration both say about the output; see `models.bundle.BundleCard`."""

    @property
    def prediction(self) -> str: ...
    @property
    def residual_scale(self) -> float: ...


def predicted_image(kind: Prediction, output: Tensor, source: Tensor) -> Tensor:
    """Image of model values, shaped like the output: the output itself, or the source plus it, scaled and clipped.

    output [N, K, M, M]: the slice itself, or with its neighbours where a network makes those too; source [N, C, M, M]
    in the same order, C at least K.
    """
    if kind.prediction == "image":
        return output
    return (source[:, : output.shape[1]] + kind.residual_scale * output).clamp(-1, 1)
