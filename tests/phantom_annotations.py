"""The annotation of the phantom brain, in several files."""

from atlaszarr import Grid
from atlaszarr.dataset_build.records import geometry
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.testing.phantom import default_phantom
from atlaszarr.testing.phantom_volumes import annotation_nrrd
from atlaszarr.writing import write_multiscales


def write_annotations(folder):
    """Write the annotation of 100 um: alone, with a level of 200 um, and as NRRD; return the folder."""
    labels, position = default_phantom().annotation(100), geometry(Grid(reference_space(9), 100))
    write_multiscales(labels, folder / "one.ome.zarr", rule="mode", geometry=position, levels=1, chunk=32)
    write_multiscales(labels, folder / "two.ome.zarr", rule="mode", geometry=position, levels=2)
    (folder / "x.nrrd").write_bytes(annotation_nrrd(default_phantom(), 100))
    return folder
