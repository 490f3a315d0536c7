"""Says before a long series begins how long it will take here: measured on this machine, not promised."""

import statistics
import time
from typing import Final

import numpy as np

import models
from config.settings import ModelSettings
from node.demo.story import Story
from node.operate.texts import time_left

_LONG: Final = 48  # slices; fewer are not worth the seconds of a measurement
_TURNS: Final = 3  # after the first one, which also pays for the start of the network
_SLICES: Final = 2  # in one turn


def say_estimate(settings: ModelSettings, slices: int, story: Story) -> None:
    """Translate a few empty slices and say how long all of them will take; says nothing of a short series."""
    if slices < _LONG:
        return
    story.step("How long will it take? The demo measures the model on this machine.")
    with story.during("loading the model and measuring"):
        path = models.find_bundle(settings.bundle)
        translator = models.load_bundle(path, device=settings.device, precision=settings.precision)
        hu = np.zeros((_SLICES, 512, 512), np.float32)
        seconds = []
        for _ in range(1 + _TURNS):
            begun = time.monotonic()
            translator.translate(hu, 0, spacing_mm=1.0)
            seconds.append(time.monotonic() - begun)
        slice_s = statistics.median(seconds[1:]) / _SLICES
    story.note(
        f"{slice_s:.2f} s for each slice ({translator.description}), so translating {slices} slices takes "
        f"{time_left(slice_s * slices)}. Reading, proving and sending come on top."
    )
