"""What `atlaszarr info` says of a section dataset."""

from __future__ import annotations

from typing import Any

from ..allen.records import SectionDataset


def summary(dataset: SectionDataset) -> dict[str, Any]:
    """One dataset at a glance, in JSON's types: what it is, what it holds, what is missing."""
    sections = dataset.sections
    numbers = [section.section_number for section in sections]
    resolutions = sorted({section.resolution for section in sections})
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
        "section thickness um": dataset.section_thickness,
        "nominal interval um": dataset.nominal_interval,
        "sections": len(sections),
        "section numbers": f"{numbers[0]} to {numbers[-1]}" if numbers else "",
        "missing section numbers": list(dataset.missing_numbers),
        "with expression view": sum(section.expression for section in sections),
        "widths": f"{min(s.width for s in sections)} to {max(s.width for s in sections)}" if sections else "",
        "heights": f"{min(s.height for s in sections)} to {max(s.height for s in sections)}" if sections else "",
        "resolution um": resolutions,
        "skipped": [{"image_id": s.image_id, "reason": s.reason} for s in dataset.skipped],
    }
