"""A model's two looks at one volume, and what becomes of a result in which it contradicts itself."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.doubt import DoubtFigures, doubtful, figures_of, limit_hu, measure_doubt
from models.translator import TranslationError, Translator
from node.dicom.doubt_file import Doubt
from node.dicom.orientation import Turn
from node.dicom.uids import seed_of
from node.dicom.volume import CTVolume
from node.errors import Permanent

DoubtMode = Literal["hold", "mark", "off"]
"""hold: measure, keep, and hold beyond MAX_DOUBTFUL_SHARE; mark: measure and keep; off: the model looks once."""

MAX_DOUBTFUL_SHARE: Final = 0.15  # both limits: `python -m bench.trust.calibrate_doubt`
MIN_DOUBTFUL_ML: Final = 100.0


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What two looks of one model disagree in; doubt is None and there are no figures where there was one look.

    reason: why a person must look at it, None within the limits.
    """

    doubt: Doubt | None = field(repr=False)
    measurements: dict[str, float]
    reason: str | None

    @classmethod
    def none(cls) -> "Contradiction":
        """That of a model that was not asked twice."""
        return cls(None, {}, None)


def predict(
    volume: CTVolume, translator: Translator, progress: Callable[[int, int], None], *, again: bool
) -> NDArray[np.float32]:
    """One look of a translator at a volume, HU on the volume's own lattice.

    again: take its `second_look` instead of `translate`. The network sees the orientation that it was trained in.
    Raises Permanent for an orientation that it does not know and for an answer that is no image.
    """
    try:
        turn = Turn.of(volume.orientation)
    except ValueError as error:
        raise Permanent(str(error)) from error
    seen_hu = turn.forth(volume.hu)
    seed, look = seed_of(seen_hu, translator.card.hu_window), translator.second_look if again else translator.translate
    try:
        return turn.back(look(seen_hu, seed, spacing_mm=volume.spacing_mm[0], progress=progress))
    except TranslationError as error:
        raise Permanent(str(error)) from error


def compare_looks(
    volume: CTVolume,
    first_hu: NDArray[np.float32],
    second_hu: NDArray[np.float32],
    inside: NDArray[np.bool_],
    level_hu: float | None,
) -> Contradiction:
    """Measure the doubt of a result; inside: bool [z, y, x], where it may differ from the source.

    Measured are doubtful_ml, brightened_ml, doubtful_share and, where anything is doubtful, doubtful_z_mm, the z of the
    slice with most of it; see `models.doubt.DoubtFigures`.
    """
    limit = limit_hu(level_hu)
    doubt_hu = measure_doubt(first_hu, second_hu, inside, volume.spacing_mm)
    mask = doubtful(doubt_hu, limit, volume.spacing_mm)
    found = figures_of(mask, first_hu, second_hu, volume.hu, inside=inside, spacing_mm=volume.spacing_mm)
    measured = {
        "doubtful_ml": found.doubtful_ml,
        "doubtful_share": found.doubtful_share,
        "brightened_ml": found.brightened_ml,
    }
    where = ""
    if found.fullest_slice is not None:
        position_mm = volume.headers[found.fullest_slice].image_position_mm
        assert position_mm is not None  # a slice without has no place in a volume
        measured["doubtful_z_mm"] = position_mm[2]
        where = f", most of it at z = {position_mm[2]:.0f} mm"
    reason = None
    if is_too_much(found):
        reason = (
            f"the model contradicts itself in {100 * found.doubtful_share:.0f} % of the tissue that it brightened "
            f"({found.doubtful_ml:.0f} mL{where})"
        )
    return Contradiction(Doubt.of(mask, doubt_hu, limit), measured, reason)


def is_too_much(found: DoubtFigures) -> bool:
    """Whether a result with so much doubt is one for a person."""
    return found.doubtful_share > MAX_DOUBTFUL_SHARE and found.doubtful_ml > MIN_DOUBTFUL_ML
