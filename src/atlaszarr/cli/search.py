"""The commands `search` and `info`: the records of section datasets, in the Allen API or in a catalogue."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from ..errors import AtlaszarrError, ServiceError
from .options import API, CATALOGUE, CRITERIA, OUTPUT, WHOLE, as_id, client, options
from .terminal import echo, echo_data, say, table

if TYPE_CHECKING:
    from ..allen.records import SectionDataset

#: Section images skipped for one reason that `info` lists one by one.
_MAX_LISTED = 3


@click.command()
@options(*CRITERIA)
@click.option("--plane", metavar="coronal|sagittal", help="Plane of section.")
@click.option("--images", is_flag=True, help="List the section images of the datasets instead.")
@click.option("--limit", type=WHOLE, default=50, metavar="N", help="Largest number of datasets to list [50].")
@options(*API, *CATALOGUE, *OUTPUT)
def search(as_json: bool, **criteria: Any) -> None:
    """List section datasets, or with --images their section images."""
    with client() as service:
        found = service.search(**criteria)
        if as_json:
            echo_data(found.reset_index().to_json(orient="records"))
        elif found.empty:
            echo("nothing matches")
        else:
            shown = found.astype(object).where(found.notna(), "")
            echo(*table((found.index.name, *found.columns), shown.itertuples()))
        limit, total = criteria["limit"], found.attrs["datasets"]
        if total > limit:
            say(f"{limit} of {total} datasets shown; --limit {total} lists all")
        if not total and criteria["gene"]:
            # A suggestion that fails is not an error of the search.
            with suppress(ServiceError):
                if similar := service.similar_gene(criteria["gene"]):
                    say(f"did you mean {similar}?")


@click.command()
@click.argument("dataset_id", callback=as_id)
@options(*API, *CATALOGUE, *OUTPUT)
def info(dataset_id: int, as_json: bool) -> None:
    """Describe one section dataset: its sections, which are missing, and what cannot be registered and why."""
    with client() as service:
        dataset = service.section_dataset(dataset_id)
    facts = _summary(dataset)
    if as_json:
        echo_data(json.dumps(facts))
        return
    skipped, problem = facts.pop("skipped"), facts.pop("not registered")
    echo(*table(None, [(name, _cell(value)) for name, value in facts.items()]))
    if problem is not None:
        echo(f"not registered: {problem}")
    reasons: dict[str, list[int]] = {}
    for section in skipped:
        reason = section["reason"].removeprefix(f"section image {section['image_id']} of section dataset {dataset.id} ")
        reasons.setdefault(reason, []).append(section["image_id"])
    for reason, ids in reasons.items():
        if len(ids) <= _MAX_LISTED:
            lines = [f"skipped: section image {id} of section dataset {dataset.id} {reason}" for id in ids]
        else:
            lines = [f"skipped: {len(ids)} section images ({ids[0]}, {ids[1]}, ...), each of which {reason}"]
        echo(*lines)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else value


def _summary(dataset: SectionDataset) -> dict[str, Any]:
    """The main facts of a dataset, in JSON types."""
    sections = dataset.sections
    numbers = [section.section_number for section in sections]
    resolutions = sorted({section.resolution for section in sections})
    thickness = dataset.section_thickness
    return {
        "section dataset": dataset.id,
        "genes": list(dataset.genes),
        "products": list(dataset.products),
        "plane of section": dataset.plane,
        "reference space": dataset.reference_space_id,
        "3-D alignment": dataset.tvr is not None,
        "age": dataset.age,
        "specimen": dataset.specimen_id,
        "failed": dataset.failed,
        "section thickness um": thickness,
        "nominal interval um": None if thickness is None else dataset.nominal_interval,
        "sections": len(sections),
        "section images": len(sections) + len(dataset.skipped),
        "section numbers": f"{numbers[0]} to {numbers[-1]}" if numbers else "",
        "missing section numbers": list(dataset.missing_numbers),
        "with expression view": sum(section.expression for section in sections),
        "widths": f"{min(s.width for s in sections)} to {max(s.width for s in sections)}" if sections else "",
        "heights": f"{min(s.height for s in sections)} to {max(s.height for s in sections)}" if sections else "",
        "resolution um": resolutions,
        "not registered": _registration_problem(dataset),
        "skipped": [{"image_id": s.image_id, "reason": s.reason} for s in dataset.skipped],
    }


def _registration_problem(dataset: SectionDataset) -> str | None:
    """Why a dataset cannot be registered; None if it can."""
    from ..geometry.spaces import reference_space

    try:
        dataset.validate_registration()
        reference_space(dataset.space)
    except AtlaszarrError as error:
        return str(error)
    return None
