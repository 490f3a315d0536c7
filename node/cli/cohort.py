"""`cohort`: the pairs that models are trained and measured on, of phantoms or from a hospital's DICOM export."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from config.spool import SpoolSettings
from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    out,
    print_json,
    print_table,
    progress_bar,
    say,
    settings_from,
)
from node.errors import Retryable

if TYPE_CHECKING:
    from models.cohort import Cohort

app = typer.Typer(no_args_is_help=True, help="Cohorts: pairs of native and contrast-enhanced scans.")

CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", help="Where fetched cohorts lie; ~/.cache/syncect/cohorts by default.", file_okay=False),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder of the cohort; new.", file_okay=False)]


@app.command("phantom")
def phantom(
    out_dir: OutOption,
    patients: Annotated[int, typer.Option("--patients", min=2, help="How many to invent.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same patients.")],
    slices: Annotated[int, typer.Option("--slices", min=1, help="Of each scan.")] = 32,
    rows: Annotated[int, typer.Option("--rows", min=32, help="Rows and columns.")] = 512,
    slice_spacing_mm: Annotated[
        float, typer.Option("--slice-spacing-mm", min=0.5, max=20.0, help="From slice to slice, in mm.")
    ] = 5.0,
    external_share: Annotated[
        float, typer.Option("--external-share", min=0.0, max=1.0, help="Share of patients of the other hospital.")
    ] = 0.2,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that make patients.")] = 1,
    no_dicom: Annotated[bool, typer.Option("--no-dicom", help="Arrays only, no DICOM files.")] = False,
    in_register: Annotated[bool, typer.Option("--in-register", help="Nobody moves between the scans.")] = False,
    anatomy: Annotated[
        str,
        typer.Option(
            "--anatomy",
            help="thorax, or teaching: varied bodies, diseases and scanners in register, with spacings of their own; "
            "--slice-spacing-mm and --external-share do not count.",
        ),
    ] = "thorax",
    as_json: JsonOption = False,
) -> None:
    """Invent a cohort: arrays for training, and the same scans as DICOM in OUT/dicom to push to the node."""
    from node.cohorts.phantom import write_phantom

    with _stages() as progress:
        cohort = write_phantom(
            out_dir,
            patients,
            seed,
            slices=slices,
            rows=rows,
            slice_spacing_mm=slice_spacing_mm,
            external_share=external_share,
            in_register=in_register,
            anatomy=anatomy,
            dicom=not no_dicom,
            workers=workers,
            progress=progress,
        )
    _show(cohort, as_json=as_json)


@app.command("build")
def build(
    dicom_dir: Annotated[
        Path, typer.Argument(help="Folder of DICOM files, in any layout.", exists=True, file_okay=False)
    ],
    out_dir: OutOption,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides who trains and who tests.")] = 1,
    deformable: Annotated[
        bool, typer.Option("--deformable", help="Bend the contrast scan after its rigid registration.")
    ] = False,
    any_grid: Annotated[
        bool, typer.Option("--any-grid", help="Also pair scans with other slices or frames of reference; resampled.")
    ] = False,
    vnc: Annotated[
        bool, typer.Option("--vnc", help="Also take virtual non-contrast images as native; marked, measured apart.")
    ] = False,
    training_site: Annotated[
        str, typer.Option("--training-site", help="InstitutionName that trains; default: the one with most pairs.")
    ] = "",
    key: Annotated[
        Path | None, typer.Option("--key", help="New CSV file of pseudonyms and patient IDs; keep it in the hospital.")
    ] = None,
    structures: Annotated[
        Path | None,
        typer.Option("--structures", help="TOML table of structures that become labels.", exists=True, dir_okay=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pair native and contrast scans of the same patients, register them, and store them under pseudonyms.

    Nothing but pixels, figures and pseudonyms is stored. Pixels still show a patient: treat the cohort as patient data.
    """
    from node.cohorts.build import build_cohort

    with _stages() as progress:
        cohort = build_cohort(
            dicom_dir,
            out_dir,
            seed=seed,
            deformable=deformable,
            any_grid=any_grid,
            vnc=vnc,
            training_site=training_site,
            key_file=key,
            structures=structures,
            progress=progress,
        )
    _show(cohort, as_json=as_json)
    if not cohort.patients:
        say("syncect: no patient has a usable pair; the reasons are in the manifest")
        raise typer.Exit(Exit.ERROR)


@app.command("shard")
def shard(
    context: typer.Context,
    cohort: Annotated[Path, typer.Argument(help="Cohort folder.", exists=True, file_okay=False)],
    url: Annotated[str, typer.Argument(help="Where to: s3://BUCKET/PREFIX, or file:///FOLDER.")],
    shard_mb: Annotated[int, typer.Option("--shard-mb", min=1, help="Size of a shard; a patient is never cut.")] = 256,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Put a cohort into an object store, as shards of whole patients of one split; again it goes on.

    The server and the credentials are those of [spool].
    """
    from models.cohort import open_cohort
    from node.bootstrap.places import open_place
    from node.cohorts.shards import write_shards

    place = open_place(url, settings_from(context, config).spool)

    with _kept_so_far(), _stages() as progress:
        index = write_shards(open_cohort(cohort), place, shard_bytes=shard_mb * 1_000_000, progress=progress)
    size = sum(one.size_bytes for one in index.shards)
    if as_json:
        print_json({"url": url, "digest": index.digest, "shards": len(index.shards), "bytes": size})
    else:
        out().print(f"{len(index.shards)} shards, {size / 1e6:.0f} MB, digest {index.digest}", markup=False)


@app.command("fetch")
def fetch(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Where `cohort shard` put a cohort.")],
    cache: CacheOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the splits that are tested on, which no training reads.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Fetch a cohort from an object store into a folder, and print the folder; `train --cohort URL` does it by itself.

    On every host of a training, before it begins: hosts wait for each other half an hour at most.
    """
    from models.cohort import SPLITS
    from node.cohorts.shards import TRAINED_ON

    spool = settings_from(context, config).spool
    cohort = fetch_from(url, spool, cache, SPLITS if everything else TRAINED_ON)
    if as_json:
        _show(cohort, as_json=True)
    else:
        out().print(str(cohort.path), markup=False, soft_wrap=True)


def fetch_from(url: str, spool: SpoolSettings, cache: Path | None, splits: Collection[str]) -> "Cohort":
    """The cohort at a URL as a folder, with the patients of these splits; shows how far it is. Raises Retryable."""
    from node.bootstrap.places import open_place
    from node.cohorts.shards import default_cache, fetch_cohort

    place = open_place(url, spool)
    with _kept_so_far(), _stages() as progress:
        return fetch_cohort(place, cache or default_cache(), splits, progress)


@contextmanager
def _kept_so_far() -> Iterator[None]:
    from storage.errors import ObjectsUnavailable

    try:
        yield
    except ObjectsUnavailable as error:
        raise Retryable(f"{error}; the same command goes on with what was moved so far") from error


@contextmanager
def _stages() -> Iterator["_Stages"]:
    """A progress bar for each stage of some work."""
    with progress_bar() as bar:
        yield _Stages(bar)


class _Stages:
    """Shows every stage as a bar of its own."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total)
        self._bar.update(self._tasks[stage], completed=done)


def _show(cohort: "Cohort", *, as_json: bool) -> None:
    from models.cohort import SPLITS

    patients = {split: cohort.split(split) for split in SPLITS}
    reasons = Counter(reason.split(":", 1)[0] for _, reason in cohort.excluded)
    if as_json:
        counts = {
            split: {"patients": len(found), "slices": sum(patient.record.shape[0] for patient in found)}
            for split, found in patients.items()
        }
        print_json(
            {
                "path": cohort.path,
                "digest": cohort.digest,
                "splits": counts,
                "excluded": dict(sorted(reasons.items())),
                "reasons": dict(cohort.excluded),
            }
        )
        return
    print_table(
        ["SPLIT", "PATIENTS", "SLICES", "HOSPITALS"],
        [
            (
                split,
                str(len(found)),
                str(sum(patient.record.shape[0] for patient in found)),
                ", ".join(sorted({patient.record.hospital for patient in found})),
            )
            for split, found in patients.items()
        ],
    )
    if cohort.excluded:
        example = {reason.split(":", 1)[0]: f"{name}: {reason.split(': ', 1)[1]}" for name, reason in cohort.excluded}
        out().print()
        print_table(
            ["EXCLUDED", "PATIENTS", "FOR EXAMPLE"],
            [(reason, str(count), example[reason]) for reason, count in sorted(reasons.items())],
        )


def add_to(app_: typer.Typer) -> None:
    """Register the commands of this module."""
    app_.add_typer(app, name="cohort")
