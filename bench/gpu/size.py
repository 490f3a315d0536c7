"""How large everything is, on a GPU and in the dry run on a CPU."""

from dataclasses import dataclass

from models.translator import Precision


@dataclass(frozen=True)
class Run:
    """One training: method, preset, slices in a batch, wall-clock seconds, and how many steps at least and at most.

    `image` predicts whole images whatever the preset says, so that the objective has far to fall.
    """

    method: str
    preset: str
    batch: int
    seconds: float
    least_steps: int
    most_steps: int
    image: bool = False


@dataclass(frozen=True)
class Size:
    """Sizes of all sections.

    `budget_s`: seconds for each section by name, in which those that ended early leave theirs to the next.
    `shipped` are the bundles of the package that are run, the first of them in whole.
    `published` is the preset whose networks stand for the published ones; `compared` those that are run on the CPU too.
    `precisions` are those whose repeats and memory are looked at; a CPU that imitates bf16 is slow.
    `node_workers`: how many workers share the device, in ascending order; each of them gets `node_series` series of
    `node_slices` slices. `shared_by`: how many processes share it without a node, each with `shared_series` series of
    `shared_slices` slices, as those have by which the bundles are timed. `small_slices`: of a small series, of which
    there are `small_series`.
    `trained` is the preset whose single training steps are compared. `rows`: rows and columns of native slices.
    """

    budget_s: dict[str, float]
    shipped: tuple[str, ...]
    published: str
    compared: tuple[str, ...]
    precisions: tuple[Precision, ...]
    trained: str
    batches: tuple[int, ...]
    slices: int
    rows: int
    matrix_side: int
    seconds_each: float
    cohort: tuple[int, int, int]
    runs: tuple[Run, ...]
    node_bundles: tuple[str, ...]
    node_workers: tuple[int, ...]
    node_series: int
    node_slices: int
    shared_by: tuple[int, ...]
    shared_series: int
    shared_slices: int
    small_slices: int
    small_series: int

    @property
    def batch(self) -> int:
        """The middle one of the batches, the product's own on a GPU."""
        return self.batches[len(self.batches) // 2]


GPU = Size(
    budget_s={
        "node": 130.0,
        "sharing": 45.0,
        "bundles": 30.0,
        "training": 120.0,
        "correctness": 45.0,
        "determinism": 20.0,
        "speed": 40.0,
        "memory": 15.0,
        "graphs": 20.0,
    },
    shipped=("demo", "demo-1step"),
    published="paper",
    compared=("small", "paper"),
    precisions=("bf16", "fp32"),
    trained="small",
    batches=(1, 8, 32),
    slices=136,
    rows=512,
    matrix_side=8192,
    seconds_each=0.4,
    cohort=(4, 12, 256),
    runs=(
        Run("cyclegan", "paper", 4, 12.0, 40, 1000),
        Run("pix2pix", "paper", 16, 8.0, 40, 1000),
        Run("syndiff_student", "paper", 4, 30.0, 20, 1000),
        Run("reggan", "paper", 4, 10.0, 40, 1000),
        Run("syndiff_paired", "paper", 4, 25.0, 30, 1000, image=True),
        Run("syndiff", "paper", 4, 40.0, 24, 2000),
    ),
    node_bundles=("demo-1step", "demo"),
    node_workers=(1, 2, 4),
    node_series=4,
    node_slices=140,
    shared_by=(1, 2, 4),
    shared_series=4,
    shared_slices=140,
    small_slices=20,
    small_series=7,
)

DRY_RUN = Size(
    budget_s={
        "node": 30.0,
        "sharing": 6.0,
        "bundles": 6.0,
        "correctness": 12.0,
        "determinism": 8.0,
        "speed": 10.0,
        "memory": 5.0,
        "training": 12.0,
        "graphs": 1.0,
    },
    shipped=("demo-1step",),
    published="tiny",
    compared=("tiny",),
    precisions=("fp32",),
    trained="tiny",
    batches=(1, 2),
    slices=2,
    rows=64,
    matrix_side=256,
    seconds_each=0.02,
    cohort=(3, 6, 64),
    runs=(
        Run("syndiff", "tiny", 2, 2.0, 30, 30),
        Run("syndiff_paired", "tiny", 2, 2.0, 30, 30, image=True),
        Run("pix2pix", "tiny", 2, 2.0, 30, 30),
        Run("syndiff_student", "tiny", 2, 2.0, 30, 30),
    ),
    node_bundles=("demo-1step",),
    node_workers=(1,),
    node_series=1,
    node_slices=8,
    shared_by=(1, 2),
    shared_series=1,
    shared_slices=2,
    small_slices=1,
    small_series=2,
)


def size_of(device: str) -> Size:
    """The sizes for "cuda" or "cpu"."""
    return GPU if device == "cuda" else DRY_RUN
