"""The pool of earlier fakes that the discriminators of CycleGAN and RegGAN are shown again."""

import torch
from torch import Tensor

from models.together import of_whole_batch


class ReplayPool:
    """The last fakes, so that a discriminator does not forget what the generator did before (Shrivastava et al., 2017).

    A pool of `size` 0 hands every batch back as it is.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._images: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._images)

    def exchange(self, fakes: Tensor) -> Tensor:
        """Put fakes [N, C, H, W] in and get as many out, detached.

        Until the pool is full every fake is stored and handed back. Then each is, with probability 1/2 from torch's
        default generator, swapped for a random stored one. The pool is one of all processes: each has the same, and is
        handed the part that belongs to its own fakes.
        """
        if self.size == 0:
            return fakes.detach()
        return of_whole_batch(fakes.detach(), self._exchange_all)

    def _exchange_all(self, fakes: Tensor) -> Tensor:
        return torch.stack([self._exchange_one(fake) for fake in fakes])

    def _exchange_one(self, fake: Tensor) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(fake.clone())
            return fake
        if torch.rand(()) < 0.5:
            return fake
        place = int(torch.randint(0, self.size, ()))
        old, self._images[place] = self._images[place], fake.clone()
        return old.to(fake.device)

    def state_dict(self) -> dict[str, Tensor]:
        """The stored fakes, in order."""
        return {"images": torch.stack([image.cpu() for image in self._images])} if self._images else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        self._images = list(state["images"].unbind()) if state else []
