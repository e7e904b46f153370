"""How many masks are compared with the annotation: a sample of each level, however few tasks wrote them."""

from dataclasses import replace

import numpy as np
import pytest

from atlaszarr.annotation_set.masks import Masks, write_masks
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.assets.names import ANNOTATION, COMPRESSED, MASKS
from atlaszarr.atlas.second_name import give_second_name
from atlaszarr.engine import ledger
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ledger import Entry
from atlaszarr.engine.multiscale import multiscale_of
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales

STRUCTURES = 12


@pytest.mark.parametrize(("most", "named"), [(None, STRUCTURES), (5, 5), (STRUCTURES, STRUCTURES)])
def test_at_most_so_many_masks_of_a_level_are_compared(tmp_path, most, named):
    labels = np.arange(1, STRUCTURES + 1, dtype=np.uint32)[:, None, None].repeat(12, 1).repeat(12, 2)
    image, masks = Target.of(tmp_path / ANNOTATION), Target.of(tmp_path / MASKS)
    write_multiscales(labels, image.url, rule="mode", levels=1, geometry=Geometry((0.01,) * 3))
    give_second_name(image, Target.of(tmp_path / COMPRESSED))
    annotation = Finished.at(image)
    terms = Terminology(tuple(Structure(id, f"S{id}", f"S{id}", "#00FF7F", (id,)) for id in labels[:, 0, 0].tolist()))
    write_masks(annotation, masks, PostOrder.of(terms))
    found = ledger.read(masks, finished=True)
    assert len(found.done) == 1
    wrong = {}  # a ledger that records, for each structure, the mask of another
    for task, entry in found.done.items():
        bodies = {key: masks.read(key) for key in entry.written}
        for key, other in zip(bodies, reversed(bodies), strict=True):
            masks.write(key, bodies[other])
        written = {key: (size, "0" * 32) for key, (size, _) in entry.written.items()}
        wrong[task] = Entry.of(task, written, entry.origin)
    multiscale = multiscale_of(masks, found)
    assert isinstance(multiscale, Masks)
    request = {"masks_of": annotation.digest}
    defects = list(multiscale.contents(request, replace(found, done=wrong), list(wrong), most))
    assert [defect.kind for defect in defects] == ["inconsistent"] * named
