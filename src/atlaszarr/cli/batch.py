"""The command `batch`."""

from __future__ import annotations

import json
from typing import Any

import click

from .build import BUILD, REFINE, chosen, given_options, print_estimate
from .options import API, CATALOGUE, CRITERIA, DATASETS, OUTPUT, STORE, WRITING, client, options
from .terminal import echo, echo_data, progress_bars, say


@click.command()
@click.argument("root")
@options(*DATASETS, *CRITERIA, *BUILD, STORE, *WRITING)
@click.option("--allow-missing", is_flag=True, help="Finish targets although section images are missing.")
@click.option("--dry-run", is_flag=True, help="The same as `plan`, for all of them; ROOT is left alone.")
@click.option(
    "--measure",
    metavar="ANNOTATION",
    help="Measure each volume in the regions of this annotation: a row for each dataset and structure, in "
    "ROOT/batch/measure.parquet.",
)
@click.option("--by-hemisphere", is_flag=True, help="With --measure: measure the left and the right side too.")
@options(REFINE, *API, *CATALOGUE, *OUTPUT)
def batch(
    root: str,
    ids: str | None,
    gene: str | None,
    product: str | None,
    specimen: int | None,
    id: int | None,
    limit: int | None,
    storage_options: dict[str, Any],
    scheduler: str | None,
    allow_missing: bool,
    overwrite: bool,
    take_over: bool,
    dry_run: bool,
    measure: str | None,
    by_hemisphere: bool,
    refine: str | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Build many section datasets, each to ROOT/<id>.ome.zarr; ROOT is a path or URL.

    The datasets are those of a file (--ids), of a search by gene, plane, product, specimen or id, or of a whole
    catalogue. The same command resumes a batch. The journal and the table batch.csv are in ROOT/batch.

    For instance: atlaszarr batch s3://bucket/mouse --product Mouse --gene 'Calb*'
    """
    from ..dataset_batch.api import build_many

    criteria: dict[str, Any] = {"gene": gene, "product": product, "specimen": specimen, "id": id}
    if ids is None:
        criteria["plane"] = values.pop("plane")
    if dry_run:
        print_estimate(ids, criteria, limit, refine, values, as_json)
        return 0
    with client() as service, progress_bars("batch", resumable=_resumable(scheduler)) as bars:
        report = build_many(
            chosen(service, ids, criteria, limit),
            root,
            client=service,
            storage_options=storage_options,
            scheduler=scheduler,
            allow_missing=allow_missing,
            overwrite=overwrite,
            take_over=take_over,
            measure=measure,
            by_hemisphere=by_hemisphere,
            refine=refine,
            progress=bars,
            **given_options(values),
        )
    for row in report.failures:
        say(f"{row.state}: section dataset {row.dataset}: {row.message}")
    if report.failed > len(report.failures):
        say(f"... and {report.failed - len(report.failures)} more, see {report.table}")
    if as_json:
        echo_data(json.dumps(report.to_dict()))
    else:
        counts = ", ".join(f"{count} {state}" for state, count in report.states.items())
        echo(f"{report.datasets} dataset{'s' * (report.datasets != 1)}: {counts}")
        echo(f"table: {report.table}")
        if report.measures is not None:
            echo(f"measures: {report.measures}")
    return 0 if report.ok else 1


def _resumable(scheduler: str | None) -> str:
    """What the same command resumes; the workers of a cluster do not know that the command has ended."""
    kept = "a batch; finished datasets are kept"
    if scheduler in (None, "threads"):
        return kept
    return f"{kept}; the workers finish the datasets that they have begun, and no others"
