"""The command `batch`."""

from __future__ import annotations

import json
from typing import Any

import click

from ..errors import InputError
from .build import BUILD, given_options
from .options import API, CATALOGUE, CRITERIA, OUTPUT, STORE, WHOLE, WRITING, client, options
from .terminal import echo, echo_data, progress_bars, say


@click.command()
@click.argument("root")
@click.option(
    "--ids",
    metavar="FILE",
    help="Build the ids in a file, one a line, or the first column of a CSV file; - is stdin.",
)
@click.option("--limit", type=WHOLE, metavar="N", help="Largest number of section datasets [all].")
@options(*CRITERIA, *BUILD, STORE, *WRITING)
@click.option("--allow-missing", is_flag=True, help="Finish targets although section images are missing.")
@click.option(
    "--measure",
    metavar="ANNOTATION",
    help="Measure each volume in the regions of this annotation: a row for each dataset and structure, in "
    "ROOT/batch/measure.parquet.",
)
@options(*API, *CATALOGUE, *OUTPUT)
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
    measure: str | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Build many section datasets, each to ROOT/<id>.ome.zarr; ROOT is a path or URL.

    The datasets are those of a file (--ids), of a search by gene, plane, product, specimen or id, or of a whole
    catalogue. The same command resumes a batch. The journal and the table batch.csv are in ROOT/batch.

    For instance: atlaszarr batch s3://bucket/mouse --product Mouse --gene 'Calb*'
    """
    from ..allen.id_list import read_ids
    from ..dataset_batch.api import build_many

    criteria: dict[str, Any] = {"gene": gene, "product": product, "specimen": specimen, "id": id}
    if ids is None:
        criteria["plane"] = values.pop("plane")
    searched = any(value is not None for value in criteria.values())
    if searched and ids is not None:
        raise InputError("--ids contradicts the search options; give one of them", code="contradictory-options")
    with client() as service, progress_bars("batch", resumable="a batch; finished datasets are kept") as bars:
        if not searched and ids is None and service.catalogue is None:
            raise InputError(
                "no datasets are chosen; give --ids FILE, a search option such as --gene, or --catalogue DIR",
                code="missing-value",
            )
        if limit is not None and limit < 1:
            raise InputError(f"limit {limit} must be at least 1", code="out-of-range")
        datasets = read_ids(ids) if ids is not None else service.search(**criteria, limit=limit)

        report = build_many(
            datasets[:limit],
            root,
            client=service,
            storage_options=storage_options,
            scheduler=scheduler,
            allow_missing=allow_missing,
            overwrite=overwrite,
            take_over=take_over,
            measure=measure,
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
