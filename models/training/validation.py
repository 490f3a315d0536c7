"""How well a method in training does on slices that it is not trained on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.methods.method import Batch, Method
from models.metrics.image import nmae, psnr_db, ssim
from models.together import at, summed
from models.training.journal import picture_rows
from models.training.slices import SliceSet

_SEED = 0
_AT_ONCE = 8


@dataclass(frozen=True)
class Validator:
    """Pairs of the split "validation", in memory, and the figures of the source itself beside which all are read."""

    batch: Batch
    identity: Mapping[str, float]

    @classmethod
    def of(cls, slices: SliceSet, count: int) -> "Validator | None":
        """Read `count` of the slices, whose targets are no stacks; None where there are none."""
        if not len(slices):
            return None
        batch = slices.spread(count)
        return cls(batch, _figures(batch.source, batch.target))

    def predict(self, method: Method, device: torch.device) -> Tensor:
        """The images that the method makes of the sources; the processes of a run share them out, and each gets all.

        Noise comes from one fixed seed, so that two epochs differ by their weights alone. Raises PeerLost.
        """
        compute = method.parts.compute
        place, prediction = compute.place, torch.zeros_like(self.batch.target, device=device)
        for start in range(place.rank * _AT_ONCE, len(self.batch.source), place.processes * _AT_ONCE):
            source = self.batch.source[start : start + _AT_ONCE]
            with compute.autocast():
                prediction[start : start + _AT_ONCE] = method.inference.translate(source.to(device), _SEED).float()
        with at(place):
            return summed(prediction).cpu()

    def judge(self, prediction: Tensor) -> tuple[dict[str, float], Tensor]:
        """PSNR, SSIM, NMAE and the gain over identity, means over slices at the method's matrix; and a picture."""
        figures = _figures(prediction, self.batch.target)
        figures["psnr_gain_db"] = figures["psnr_db"] - self.identity["psnr_db"]
        return figures, picture_rows(self.batch.source[:, :1], prediction, self.batch.target)


def _figures(prediction: Tensor, target: Tensor) -> dict[str, float]:
    pairs = [
        (((p[0] + 1) / 2).numpy().astype(np.float64), ((t[0] + 1) / 2).numpy().astype(np.float64))
        for p, t in zip(prediction, target, strict=True)
    ]
    metrics = {"psnr_db": psnr_db, "ssim": ssim, "nmae": nmae}
    return {name: float(np.mean([metric(p, t) for p, t in pairs])) for name, metric in metrics.items()}
