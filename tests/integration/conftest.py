"""Fixtures of the tests that need a server, a cluster or an atlas."""

from __future__ import annotations

import pytest
from distributed import LocalCluster

from atlaszarr import AllenClient, Terminology, build, build_atlas
from atlaszarr.testing.ontology import structure_graph
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from services import *  # noqa: F403


@pytest.fixture(scope="session")
def cluster():
    """A cluster of two worker processes with a thread each; tests leave it as they found it."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def built(emulator, made_once):
    """Builds a dataset of `emulator` once for all tests: ``built(dataset, **options)`` -> Path, to be read only."""

    def target(dataset, **options):
        def make(path):
            with AllenClient(emulator.url, cache="none", rate=1e9) as client:
                assert build(dataset, path, client=client, **options).ok

        name = " ".join(f"{key}={value}" for key, value in sorted(options.items()))
        return made_once(f"{dataset} {name}.ome.zarr", make)

    return target


@pytest.fixture(scope="session")
def annotation(made_once):
    """The annotation of the phantom at 100 um, in an atlas, to be read only."""

    def make(path):
        path.mkdir()
        (path / "x.nrrd").write_bytes(annotation_nrrd(default_phantom(), 100))
        ontology = Terminology.from_structure_graph(structure_graph()["msg"])
        build_atlas(path / "atlas", annotation=path / "x.nrrd", ontology=ontology)

    found = made_once("annotation of the phantom", make)
    return found / "atlas/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr"
