"""What a build did, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..allen.images import MissingImage
from .plan import Plan


@dataclass(frozen=True)
class ViewReport:
    """What became of one view of a dataset.

    Attributes
    ----------
    plan : Plan
    target : str
    state : str
        ``built``, ``resumed``, ``already finished``, or ``unfinished`` for want of images.
    tasks_done : int
        Blocks computed and coarsened by this run.
    failures : tuple of MissingImage
        Images, or windows of them, that could not be had: the blocks that show them are empty there.
    """

    plan: Plan
    target: str
    state: str
    tasks_done: int
    failures: tuple[MissingImage, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in JSON's types."""
        failures = [{"image_id": f.request.image_id, "url": f.url, "reason": f.reason} for f in self.failures]
        return {
            "target": self.target,
            "state": self.state,
            "tasks_done": self.tasks_done,
            "failures": failures,
            "plan": self.plan.to_dict(),
        }


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes
    ----------
    dataset : int
    views : tuple of ViewReport
        In the order asked for; the first lies at the target itself.
    """

    dataset: int
    views: tuple[ViewReport, ...]

    @property
    def ok(self) -> bool:
        """Whether every view is finished, with all its images or with holes that were accepted."""
        return all(view.state != "unfinished" for view in self.views)

    def to_dict(self) -> dict[str, Any]:
        """Everything in it, in JSON's types."""
        return {"dataset": self.dataset, "ok": self.ok, "views": [view.to_dict() for view in self.views]}
