"""The command `batch`."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from .build import BUILD, given
from .options import API, OUTPUT, STORE, WHOLE, WRITING, as_id, client, options
from .terminal import echo, echo_data, progress_bars, say

if TYPE_CHECKING:
    from ..dataset_batch.api import BatchStatus

_SEARCH = (
    click.option("--gene", metavar="G", help="Build the datasets of a gene: acronym in any case, * is a wildcard."),
    click.option("--product", metavar="P", help="Build the datasets of a product, for instance Mouse."),
    click.option("--specimen", callback=as_id, metavar="ID", help="Build the datasets of a specimen."),
    click.option("--limit", type=WHOLE, metavar="N", help="Largest number of datasets [all]."),
)


@click.command()
@click.argument("root")
@click.option(
    "--ids",
    metavar="FILE",
    help="Build the ids in a file, one a line, or the first column of a CSV file; - is stdin.",
)
@options(*_SEARCH, *BUILD, STORE, *WRITING)
@click.option("--allow-missing", is_flag=True, help="Finish targets although section images are missing.")
@options(*API, *OUTPUT)
def batch(
    root: str,
    ids: str | None,
    gene: str | None,
    product: str | None,
    specimen: int | None,
    limit: int | None,
    storage_options: dict[str, Any],
    scheduler: str | None,
    allow_missing: bool,
    overwrite: bool,
    take_over: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Build many section datasets, each to ROOT/<id>.ome.zarr; ROOT is a path or URL.

    The same command resumes a batch. The journal and the table batch.csv are in ROOT/batch. Without --ids, --plane
    chooses the datasets of a plane of section.

    For instance: atlaszarr batch s3://bucket/mouse --product Mouse --gene 'Calb*'
    """
    from ..allen.id_list import read_ids
    from ..dataset_batch.api import build_many

    criteria: dict[str, Any] = {"gene": gene, "product": product, "specimen": specimen}
    if ids is None:
        criteria["plane"] = values.pop("plane")
    searched = any(value is not None for value in criteria.values())
    if searched and ids is not None:
        raise InputError("--ids contradicts the search options; give one of them", code="contradictory-options")
    if not searched and ids is None:
        raise InputError(
            "no datasets are chosen; give --ids FILE or a search option such as --gene", code="missing-value"
        )
    with client() as service, _progress("batch") as bars:
        datasets = read_ids(ids) if ids is not None else service.search(**criteria, limit=limit)

        def show(status: BatchStatus) -> None:
            bars(status.finished + status.done, status.total, "datasets", str(status))

        report = build_many(
            datasets[:limit],
            root,
            client=service,
            storage_options=storage_options,
            scheduler=scheduler,
            allow_missing=allow_missing,
            overwrite=overwrite,
            take_over=take_over,
            progress=show,
            **given(values),
        )
    for row in report.failures:
        say(f"{row.state}: section dataset {row.dataset}: {row.message}")
    if report.failed > len(report.failures):
        say(f"... and {report.failed - len(report.failures)} more, see {report.table}")
    if as_json:
        echo_data(json.dumps(report.to_dict()))
    else:
        counts = ", ".join(f"{count} {state}" for state, count in report.states.items())
        echo(f"{report.datasets} datasets: {counts}")
        echo(f"table: {report.table}")
    return 0 if report.ok else 1


def _progress(title: str) -> AbstractContextManager[Any]:
    return progress_bars(title, resumable="a batch; finished datasets are kept")
