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
    """Image of model values [N, 1, M, M]: the output itself, or the source plus the scaled output, clipped.

    output [N, 1, M, M]; source [N, C, M, M], of which the first channel is the slice itself.
    """
    if kind.prediction == "image":
        return output
    return (source[:, :1] + kind.residual_scale * output).clamp(-1, 1)
