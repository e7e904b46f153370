"""Which refined sections not to believe, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from .section import LARGEST_AFFINE, LEAST_DICE, LEAST_JACOBIAN, RefinedSection

#: Fewer sections than this are not compared with each other, since some of them may be bad.
LEAST_SECTIONS = 8
#: A section is flagged whose correlation is below this part of the median of the dataset. A first version had 0.72 for
#: good sections, 0.66 to 0.69 for those with tears and holes, and at most 0.38 for those upside down, half lost or 500
#: um off.
LEAST_CORRELATION = 0.6
#: Unless its agreement is at least this part of their median, and this much. It is 0.31 or more of the median for
#: sections of the benchmark of a third of the contrast.
LEAST_PART_OF_AGREEMENT, LEAST_AGREEMENT = 0.25, 0.1


def flags(
    sections: Mapping[int, RefinedSection],
    far: Collection[int] = (),
    passing: Collection[int] = (),
    turned: Collection[int] = (),
    agreements: Mapping[int, float] | None = None,
) -> dict[int, str]:
    """Flag the sections of a dataset that are damaged, turned, far off in depth, out of order, or without contrast.

    Parameters
    ----------
    sections : mapping of int to RefinedSection
        The refined sections of one dataset by SectionImage id.
    far, passing, turned : collection of int
        The ids of those for which `SectionDepth.far`, `atlaszarr.refinement.depth.passing` and `SectionDepth.turned`
        hold.
    agreements : mapping of int to float, optional
        `SectionDepth.agreement` by id, of those that are compared with others.

    Returns
    -------
    dict of int to str
        By the ids of the flagged sections, the first reason that holds: ``orientation`` (it is turned), ``no contrast``
        (it was not judged), ``affine``, ``jacobian`` or ``tissue`` (a hard limit is exceeded), ``depth`` (it is far
        off), ``correlation``, or ``order`` (its corrected depth passes that of another section).

    Notes
    -----
    The hard limits are a displacement by the affine of over 1 mm, a Jacobian under 0.3, and a Dice coefficient of the
    tissue under 0.9. A section is flagged for its correlation if that is below 0.6 of the median over the sections of
    the dataset that have contrast, since its level depends on the stain. It is the correlation on the half that was not
    fitted, as recorded or as fitted, whichever is higher. A section with little contrast correlates little too, but
    agrees with what the others lead to expect of it: it is not flagged for this if its agreement is at least a quarter
    of their median. If fewer than eight sections have contrast, none is flagged for its correlation.
    """
    judged = {id: section.unseen for id, section in sections.items() if section.reason != "no contrast"}
    are_compared = len(judged) >= LEAST_SECTIONS
    least = LEAST_CORRELATION * max(float(np.median(list(judged.values()))), 0.0) if are_compared else -1.0
    known = agreements or {}
    typical = float(np.median(list(known.values()))) if known else 0.0
    agreeing = max(LEAST_PART_OF_AGREEMENT * typical, LEAST_AGREEMENT)
    found: dict[int, str] = {}
    for id, section in sections.items():
        if id in turned:
            found[id] = "orientation"
        elif section.reason == "no contrast":
            found[id] = "no contrast"
        elif section.affine > LARGEST_AFFINE:
            found[id] = "affine"
        elif section.jacobian < LEAST_JACOBIAN:
            found[id] = "jacobian"
        elif max(section.before.dice, section.after.dice) < LEAST_DICE:
            found[id] = "tissue"
        elif id in far:
            found[id] = "depth"
        elif judged[id] < least and not (id in known and known[id] >= agreeing):
            found[id] = "correlation"
        elif id in passing:
            found[id] = "order"
    return found
