"""Masks of structures on a cluster."""

import numpy as np
from distributed import LocalCluster

from atlaszarr.annotation_set.masks import write_masks
from atlaszarr.annotation_set.structure_order import PostOrder
from atlaszarr.assets.names import ANNOTATION, MASKS
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.terminology.terminology import Structure, Terminology
from atlaszarr.writing import write_multiscales

PATHS = {1: (1,), 3: (1, 3), 40: (1, 3, 40), 4_000_000_000: (1, 4_000_000_000)}
TERMINOLOGY = Terminology(
    tuple(Structure(id, f"S{id}" if id > 1 else "root", f"The {id}", "#00FF7F", path) for id, path in PATHS.items())
)


def test_masks_by_a_cluster_are_the_same_bytes(tmp_path, contents):
    coarse = np.random.default_rng(0).choice(np.array([0, *PATHS], np.uint32), (43, 10, 8))
    target = Target.of(tmp_path / ANNOTATION)
    labels = coarse.repeat(7, 0).repeat(7, 1).repeat(7, 2)
    write_multiscales(labels, target.url, rule="mode", levels=2, chunk=20, geometry=Geometry((0.01,) * 3))
    annotation, order = Finished.at(target), PostOrder.of(TERMINOLOGY)
    write_masks(annotation, Target.of(tmp_path / MASKS), order)
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster:
        write_masks(annotation, Target.of(tmp_path / "cluster.ome.zarr"), order, scheduler=cluster.scheduler_address)
    assert contents(tmp_path / "cluster.ome.zarr") == contents(tmp_path / MASKS)
