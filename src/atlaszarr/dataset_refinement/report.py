"""The report of a refinement: a row for each section, as text, as a table and as refinement.csv."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..allen.images import MissingImage
from ..allen.records import SectionDataset
from ..engine.notebook import table_html
from ..refinement.depth import FAR, passing
from ..refinement.flags import flags
from ..refinement.section import Figures, RefinedSection
from .comparison import Fit

if TYPE_CHECKING:
    import pandas as pd


#: The least medians of a dataset whose annotation seems to fit: the correlation on the unseen half, recorded or fitted,
#: and the recorded Dice coefficient. With the right annotation datasets of the benchmark have 0.34 or more and 0.93,
#: their sections of a third of the contrast 0.13, and the real section 0.25; with one that is upside down or has its
#: front at the back 0.06 or less, once 0.11, and with a brain of 0.85 of the size a Dice coefficient of 0.82.
LEAST_TYPICAL_UNSEEN, LEAST_TYPICAL_DICE = 0.1, 0.85


@dataclass(frozen=True)
class SectionRow:
    """How well a section is registered, before and after: a row of refinement.csv.

    The figures are those of `atlaszarr.refinement.section.Figures`; None without an image, or before the fit.

    Attributes
    ----------
    image_id, section_number : int
    depth_recorded_um : float
        Depth of the section in the stack of sections by its record.
    depth_um : float or None
        What is added to it; also if the section is not kept, or its image is missing.
    agreement : float or None
        Correlation with the levels of regions that the other sections lead to expect; None if too few are clear.
    correlation_before, correlation_after : float or None
        Of all that is compared. The fit maximizes it, so that a rise says little.
    unseen_before, unseen_after : float or None
        Of the half that was not fitted.
    dice_before, dice_after : float or None
    affine_um, deformation_p50_um, deformation_p95_um : float or None
        See `RefinedSection`.
    jacobian : float or None
        The least determinant of the Jacobian.
    kept : bool
        Whether the fitted registration within the plane is kept; otherwise the section keeps the recorded one.
    flag : str
        Why not to believe the section; empty if there is no reason.
    reason : str
        ``refined``, or why the fitted registration is not kept, or why the image is missing.
    """

    image_id: int
    section_number: int
    depth_recorded_um: float
    depth_um: float | None = None
    agreement: float | None = None
    correlation_before: float | None = None
    correlation_after: float | None = None
    unseen_before: float | None = None
    unseen_after: float | None = None
    dice_before: float | None = None
    dice_after: float | None = None
    affine_um: float | None = None
    deformation_p50_um: float | None = None
    deformation_p95_um: float | None = None
    jacobian: float | None = None
    kept: bool = False
    flag: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Refinement:
    """The outcome of `atlaszarr.refine`.

    Attributes
    ----------
    dataset : int
    target : str or None
        The folder FIELDS; None if nothing is written.
    state : str
        Of the target: ``built``, ``resumed``, ``already finished``, ``unfinished`` if images are missing, or ``not
        refined`` without a target.
    sections : tuple of SectionRow
        In order of recorded depth.
    dataset_depth_um : float
        The part of the corrections of depth that all sections share.
    failures : tuple of MissingImage
    """

    dataset: int
    target: str | None
    state: str
    sections: tuple[SectionRow, ...]
    dataset_depth_um: float
    failures: tuple[MissingImage, ...]

    @property
    def ok(self) -> bool:
        """Whether the target is finished, or no image is missing."""
        return self.state != "unfinished" and (self.target is not None or not self.failures)

    @property
    def flagged(self) -> tuple[SectionRow, ...]:
        """The sections with a flag."""
        return tuple(row for row in self.sections if row.flag)

    @property
    def warning(self) -> str:
        """Why not to believe the refinement as a whole; empty if there is no reason.

        The annotation fits the sections worse than it fits those of any good dataset, or more than half of them are
        flagged.
        """
        fitted = [row for row in self.sections if row.correlation_before is not None and row.reason != "no contrast"]
        if fitted:
            before, after, dice = (
                np.array([getattr(row, name) for row in fitted], np.float64)
                for name in ("unseen_before", "unseen_after", "dice_before")
            )
            unseen, overlap = float(np.median(np.maximum(before, after))), float(np.median(dice))
            if unseen < LEAST_TYPICAL_UNSEEN or overlap < LEAST_TYPICAL_DICE:
                return (
                    f"the annotation does not seem to fit this dataset: the median correlation on the unseen half is "
                    f"{unseen:.2f} and the Dice coefficient before {overlap:.2f}, where good datasets have at least "
                    f"{LEAST_TYPICAL_UNSEEN:g} and {LEAST_TYPICAL_DICE:g}; check its space, orientation and age, and "
                    "that images are brightfield, and look at the picture of --preview before you use the fields"
                )
        judged = sum(row.correlation_before is not None for row in self.sections)
        if 2 * len(self.flagged) <= judged:
            return ""
        if abs(self.dataset_depth_um) > FAR:
            return (
                f"the whole dataset is corrected by {round(self.dataset_depth_um):+d} um in depth; check that the "
                "annotation is the right one, and look at the picture of --preview before you use the fields"
            )
        return (
            f"{len(self.flagged)} of {judged} sections are flagged: the annotation may be the wrong one or have "
            "another orientation, or the images may not be brightfield; look at the picture of --preview before you "
            "use the fields"
        )

    @property
    def table(self) -> pd.DataFrame:
        """A row for each section, indexed by image_id; see `SectionRow` for the columns."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.sections]).set_index("image_id")

    def to_dict(self) -> dict[str, Any]:
        """All attributes as JSON types."""
        return {
            "dataset": self.dataset,
            "target": self.target,
            "state": self.state,
            "ok": self.ok,
            "dataset_depth_um": self.dataset_depth_um,
            "warning": self.warning,
            "sections": [asdict(row) for row in self.sections],
            "failures": [{"image_id": f.request.image_id, "url": f.url, "reason": f.reason} for f in self.failures],
        }

    def describe(self) -> list[tuple[str, str]]:
        """The outcome in words: names and values."""
        judged = [row for row in self.sections if row.correlation_before is not None]
        kept = sum(row.kept for row in judged)
        found = Counter(row.flag for row in self.flagged)
        lines = [
            ("sections", f"{len(self.sections)}, {kept} of them refined within the plane"),
            ("depth of the dataset", f"{round(self.dataset_depth_um):+d} um"),
            ("flags", ", ".join(f"{count} {flag}" for flag, count in sorted(found.items())) or "none"),
            *([("warning", self.warning)] if self.warning else []),
        ]
        if judged:
            names = ("correlation_before", "correlation_after", "unseen_before", "unseen_after")
            medians = [float(np.median([getattr(row, name) for row in judged])) for name in names]
            lines.insert(1, ("correlation", "median {:.2f} before, {:.2f} after".format(*medians[:2])))
            lines.insert(2, ("unseen half", "median {:.2f} before, {:.2f} after".format(*medians[2:])))
        return lines

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        named = [f"section {row.section_number} (image {row.image_id}): {row.flag}" for row in self.flagged]
        reasons = [f"section image {failure.request.image_id}: {failure.reason}" for failure in self.failures]
        rows: list[tuple[str, object]] = [
            *([] if self.target is None else [("target", self.target)]),
            ("state", self.state),
            *((name, value) for name, value in self.describe() if name != "flags"),
            ("flags", named or "none"),
            *([("missing", reasons)] if reasons else []),
        ]
        return table_html(f"Refinement of section dataset {self.dataset}", rows)


def rows_of(
    dataset: SectionDataset,
    dataset_depth: float,
    fits: Mapping[int, Mapping[str, Any]],
    written: Mapping[int, Mapping[str, Any]],
    missing: Mapping[int, str],
) -> tuple[SectionRow, ...]:
    """The rows of all sections.

    Parameters
    ----------
    dataset : SectionDataset
    dataset_depth : float
        The part of the corrections of depth that all sections share, in um.
    fits, written : mapping of int to mapping
        What was recorded of the fit and of the field of each section, by position; see `Fit.to_json` and `job`.
    missing : mapping of int to str
        Why an image is missing, by SectionImage id.
    """
    ids = [section.image_id for section in dataset.sections]
    fitted = {k: Fit.from_json(content) for k, content in fits.items()}
    recorded = [dataset.sections[k].depth for k in fitted]
    judged = {k: _as_written(fit.section, written.get(k, {})) for k, fit in fitted.items()}
    passed = np.array(list(fitted))[passing(recorded, [fit.depth.correction for fit in fitted.values()], dataset_depth)]
    flagged = flags(
        {ids[k]: section for k, section in judged.items()},
        far={ids[k] for k, fit in fitted.items() if fit.depth.far},
        passing={ids[k] for k in passed},
        turned={ids[k] for k, fit in fitted.items() if fit.depth.turned},
        agreements={ids[k]: fit.depth.agreement for k, fit in fitted.items() if fit.depth.agreement is not None},
    )
    rows = []
    for k, record in enumerate(dataset.sections):
        given = (record.image_id, record.section_number, record.depth)
        fit = fitted.get(k)
        if (why := missing.get(record.image_id)) is not None:
            depth = dataset_depth if fit is None else fit.depth.correction
            rows.append(SectionRow(*given, depth_um=depth, reason=f"image missing: {why}"))
            continue
        if fit is None:
            rows.append(SectionRow(*given, reason="not compared yet"))
            continue
        section, before = judged[k], fit.recorded
        median, p95 = section.deformation
        rows.append(
            SectionRow(
                *given,
                depth_um=fit.depth.correction,
                agreement=fit.depth.agreement,
                correlation_before=before.correlation,
                correlation_after=section.after.correlation,
                unseen_before=before.unseen,
                unseen_after=section.after.unseen,
                dice_before=before.dice,
                dice_after=section.after.dice,
                affine_um=section.affine,
                deformation_p50_um=median,
                deformation_p95_um=p95,
                jacobian=section.jacobian,
                kept=section.kept,
                flag=flagged.get(record.image_id, ""),
                reason=section.reason,
            )
        )
    return tuple(rows)


def _as_written(section: RefinedSection, written: Mapping[str, Any]) -> RefinedSection:
    """A fitted section with the figures of the field that is written, if one is."""
    if "figures" not in written:
        return section
    after = replace(Figures(**written["figures"]), unseen=section.after.unseen)
    return replace(section, after=after, jacobian=written["jacobian"])


def table_of(rows: Iterable[SectionRow]) -> bytes:
    """The text of refinement.csv; numbers that are not known are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in fields(SectionRow))
    for row in rows:
        writer.writerow(str(value).lower() if isinstance(value, bool) else value for value in asdict(row).values())
    return text.getvalue().encode()
