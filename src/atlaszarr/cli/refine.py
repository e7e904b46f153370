"""The command `refine`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .options import API, CATALOGUE, IMAGES, NUMBER, OUTPUT, STORE, WORKERS, WRITING, as_id, client, options
from .terminal import echo, echo_data, missing_lines, progress_bars, say, table

if TYPE_CHECKING:
    from ..dataset_refinement.report import Refinement


@click.command()
@click.argument("dataset_id", callback=as_id)
@click.argument("fields", required=False)
@click.option(
    "--annotation",
    required=True,
    metavar="ANNOTATION",
    help="Annotation to register to: OME-Zarr, NRRD, NIfTI, MetaImage or TIFF, or an atlas, path or URL.",
)
@click.option(
    "--template",
    metavar="TEMPLATE",
    help="Template in the same space, in any of these formats: it tells depths better than labels do.",
)
@click.option(
    "--hold-out",
    "hold_out",
    multiple=True,
    metavar="ACRONYM",
    help="Leave this structure out of the depth and the fit, by acronym, name or id, for judging; repeatable.",
)
@click.option("--terminology", metavar="CSV", help="Terminology of --hold-out [by manifest, or next to ANNOTATION].")
@click.option(
    "--resolution", type=NUMBER, default=25.0, metavar="UM", help="Pixel size of the fields: 50, 25, 10 [25]."
)
@click.option(
    "--preview", "picture", metavar="PNG", help="Also draw each section before and after: a .png or .svg file."
)
@options(WORKERS, STORE, *WRITING)
@click.option("--allow-missing", is_flag=True, help="Finish FIELDS although section images are missing.")
@click.option("--dry-run", is_flag=True, help="Fit all sections and print the table with flags; write nothing.")
@options(*IMAGES, *API, *CATALOGUE, *OUTPUT)
def refine(
    dataset_id: int,
    fields: str | None,
    annotation: str,
    template: str | None,
    hold_out: tuple[str, ...],
    terminology: str | None,
    resolution: float,
    picture: str | None,
    workers: int | None,
    storage_options: dict[str, Any],
    scheduler: str | None,
    overwrite: bool,
    take_over: bool,
    allow_missing: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Refine the registration of the sections to an annotation, into FIELDS, a folder or URL for `build --fields`.

    FIELDS has a displacement field for each section that fits better, corrected depths, and refinement.csv with figures
    and a flag for each section. The same command resumes an interrupted refinement. It needs atlaszarr[refine].

    For instance: atlaszarr refine 74272479 nrp1.fields --annotation annotation.ome.zarr
    """
    from ..dataset_refinement.api import refine as run_refine

    if fields is None and not dry_run:
        raise InputError(
            "FIELDS is missing; give a folder or URL, or --dry-run for the table alone", code="missing-value"
        )
    resumable = "" if overwrite or dry_run else "a refinement"
    with client() as service, progress_bars(f"dataset {dataset_id}", resumable=resumable) as progress:
        report = run_refine(
            dataset_id,
            annotation,
            None if dry_run else fields,
            template,
            hold_out=hold_out,
            terminology=terminology,
            resolution=resolution,
            preview=picture,
            client=service,
            storage_options=storage_options,
            scheduler=scheduler,
            workers=workers,
            allow_missing=allow_missing,
            overwrite=overwrite,
            take_over=take_over,
            progress=progress,
        )
    missing = missing_lines(report.failures)
    if missing:
        hint = "; --allow-missing finishes without" if report.state == "unfinished" else ""
        say(*missing, f"{len(missing)} of {len(report.sections)} section images are missing{hint}")
    if as_json:
        echo_data(json.dumps(report.to_dict()))
    else:
        _echo(report)
    return 0 if report.ok else 1


#: Columns of the printed table: header, attribute of a row, and digits.
_COLUMNS = (
    ("section", "section_number", None),
    ("added depth um", "depth_um", 0),
    ("unseen before", "unseen_before", 2),
    ("after", "unseen_after", 2),
    ("dice before", "dice_before", 2),
    ("after", "dice_after", 2),
    ("affine um", "affine_um", 0),
    ("deformation um", "deformation_p50_um", 0),
    ("jacobian", "jacobian", 2),
    ("flag", "flag", None),
    ("reason", "reason", None),
)


def _echo(report: Refinement) -> None:
    """Print a row for each section, and the outcome."""
    rows = [[_rounded(getattr(row, name), digits) for _, name, digits in _COLUMNS] for row in report.sections]
    echo(*table([header for header, _, _ in _COLUMNS], rows))
    echo(*table(None, report.describe()))
    if report.target is not None:
        echo(f"{report.state}: {report.target}")


def _rounded(value: Any, digits: int | None) -> Any:
    if value is None or digits is None:
        return "" if value is None else value
    return _Hundredths(value) if digits else round(value)


class _Hundredths(float):
    """A number that is printed with two digits, so that the points of a column lie below each other; without -0.00."""

    def __str__(self) -> str:
        return f"{self:z.2f}"
