"""What is measured on a prediction: image similarity, HU and statistics."""

from models.metrics.fsim import FsimMeter, fsim
from models.metrics.hu import STRUCTURES, HuError, hu_error, structure_masks
from models.metrics.image import ms_ssim, nmae, psnr_db, ssim, vif
from models.metrics.statistics import Comparison, compare_pairs, holm, rank_biserial, wilcoxon_p

__all__ = [
    "STRUCTURES",
    "Comparison",
    "FsimMeter",
    "HuError",
    "compare_pairs",
    "fsim",
    "holm",
    "hu_error",
    "ms_ssim",
    "nmae",
    "psnr_db",
    "rank_biserial",
    "ssim",
    "structure_masks",
    "vif",
    "wilcoxon_p",
]
