"""A tree of the standard "Atlas Asset Organization" as the Allen Institute packs its own assets.

Identifiers are CURIEs and labels other numbers, levels are ``s0`` and ``s1``, images have an axis ``c`` and run in RAS,
and lists of descendants are Python's text. The voxels are those of `lumps`.
"""

import csv
import json

import numpy as np
import zarr

import lumps

NAME, VERSION = "allen-adult-mouse-annotation", "2020"
SET = f"annotation-sets/{NAME}/{VERSION}"
ATLAS = "atlases/allen-adult-mouse-ccf-atlas/2020"
TERMINOLOGY = "terminologies/allen-adult-mouse-terminology/2020"
LABELS = f"{SET}/annotations_compressed.ome.zarr"
MASKS = f"{SET}/annotations.ome.zarr"
#: The label of the voxels of each structure of `lumps`.
VALUES = {997: 2, 8: 11, 10: 1, 20: 1132, 614454277: 7}
PARENTS = {id: parent for id, parent, *_ in lumps.ROWS}
#: RAS, along the axes of an array: z, y, x.
RAS = ("inferior-to-superior", "posterior-to-anterior", "left-to-right")
#: Size of a voxel in mm, and the centre of the first voxel in a frame of the Institute's own.
SIZE, START = 0.2, (-6.0, -9.5, -5.6)


def curie(id):
    return None if id is None else f"MBA:{id}"


def path_of(id):
    return [*(path_of(PARENTS[id]) if PARENTS[id] else []), id]


def with_descendants(id):
    return [other for other in PARENTS if id in path_of(other)]


def rows():
    """The rows of terminology.csv, as a dictionary each."""
    for id, parent, name, acronym, colour in lumps.ROWS:
        yield {
            "identifier": curie(id),
            "parent_identifier": curie(parent),
            "annotation_value": VALUES[id],
            "name": name,
            "abbreviation": acronym,
            "color_hex_triplet": colour,
            "descendant_identifiers": str([curie(other) for other in with_descendants(id)]),
            "descendant_annotation_values": str([VALUES[other] for other in with_descendants(id)]),
            "root_identifier_path": str([curie(other) for other in path_of(id)]),
        }


def labels():
    """The labels along (z, y, x) in RAS."""
    found = np.zeros(lumps.SHAPE, np.uint32)
    for id, value in VALUES.items():
        found[lumps.labels() == id] = value
    return np.ascontiguousarray(found.transpose(1, 0, 2)[::-1, ::-1])


def axes(first="c"):
    spatial = [
        {"name": name, "type": "space", "unit": "millimeter", "orientation": {"type": "anatomical", "value": word}}
        for name, word in zip("zyx", RAS, strict=True)
    ]
    return [{"name": first, "type": "channel"}, *spatial]


def multiscales(first="c"):
    """The attribute ``ome`` of an image of two levels, the second of which has every second voxel."""
    datasets = [
        {
            "path": f"s{level}",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, *[SIZE * 2**level] * 3]},
                {"type": "translation", "translation": [0.0, *START]},
            ],
        }
        for level in (0, 1)
    ]
    entry = {"name": "annotations", "axes": axes(first), "datasets": datasets}
    return {"version": "0.5", "multiscales": [entry]}


def write_image(folder, values, ome):
    """An image of the levels ``s0`` and ``s1``, the second of which has every second voxel."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    for level, part in enumerate((values, values[..., ::2, ::2, ::2])):
        chunks = (*(1,) * (part.ndim - 3), *(min(32, n) for n in part.shape[-3:]))
        config = {"write_empty_chunks": True}
        array = group.create_array(f"s{level}", shape=part.shape, dtype=part.dtype, chunks=chunks, config=config)
        array[:] = part
    group.attrs["ome"] = ome
    return group


def write_masks(folder):
    """One channel for each structure with its descendants, and the array with its label."""
    found = labels()
    masks = np.stack([np.isin(found, [VALUES[other] for other in with_descendants(id)]) for id in VALUES])
    group = write_image(folder, masks.astype(np.uint8), multiscales("a"))
    group.create_array("annotation_values", data=np.array([*VALUES.values()], np.uint32))


def reference(location, **more):
    _, name, version = location.split("/")
    return {"name": name, "version": version, "location": f"/{location}", **more}


def put(root, folder, **manifest):
    """Write the manifest of an asset."""
    path = root / folder / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = "https://atlas-assets.readthedocs.io/en/v0.2.0/index.html"
    path.write_text(json.dumps({**reference(folder), "schema_version": "0.2.0", "described_by": page, **manifest}))


def edit(root, folder, **changes):
    """Change keys of a manifest; a key with None is removed."""
    path = root / folder / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def write_terminology(root, folder=TERMINOLOGY):
    put(root, folder)
    with (root / folder / "terminology.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*next(rows())])
        writer.writeheader()
        writer.writerows(rows())


def write_tree(root, ome=None, masks=False):
    """Write the atlas, its annotation set and its terminology, and return the root of the tree."""
    space = reference("coordinate-spaces/allen-adult-mouse-ccf-stereotaxic-space/2020")
    template = reference("templates/allen-adult-mouse-stpt-template/2015")
    put(root, ATLAS, coordinate_space=space, templates=[template], annotation_sets=[reference(SET)])
    put(root, SET, coordinate_space=space, template=template, terminology=reference(TERMINOLOGY), scales=[200, 400])
    write_terminology(root)
    write_image(root / LABELS, labels()[np.newaxis], ome or multiscales())
    if masks:
        write_masks(root / MASKS)
    return root


# As the packager of the Institute writes the volume of a NIfTI: its axes are called z, y, x in the order of the file.


def _spatial(words):
    return [
        {"name": name, "type": "space", "unit": "millimeter", "orientation": {"type": "anatomical", "value": word}}
        for name, word in zip("zyx", words, strict=True)
    ]


def _packed(version, shared, own, world, is_named=False):
    """The attribute ``ome``: a scale for each level to the system of the array, then `shared` to that of the world."""

    def end(name, kind="name"):
        return {kind: name} if is_named else name

    def sequence(first, last, steps):
        return {"type": "sequence", "input": first, "output": last, "transformations": steps}

    datasets = [
        {
            "path": f"s{level}",
            "coordinateTransformations": [
                sequence(
                    end(f"s{level}", "path"), end("intrinsic"), [{"type": "scale", "scale": [SIZE * 2**level] * 3}]
                )
            ],
        }
        for level in (0, 1)
    ]
    systems = [{"name": "intrinsic", "axes": _spatial(own)}, {"name": "mm RAS", "axes": _spatial(world)}]
    steps = [sequence(end("intrinsic"), end("mm RAS"), shared)]
    entry = {"name": "/", "datasets": datasets, "coordinateTransformations": steps}
    if is_named:
        return {"version": version, "multiscales": [{**entry, "coordinateSystems": systems}]}
    return {"version": version, "coordinateSystems": systems, "multiscales": [{**entry, "axes": _spatial(own)}]}


_PIR = ("anterior-to-posterior", "dorsal-to-ventral", "left-to-right")
_IN_RAS = ("left-to-right", "posterior-to-anterior", "ventral-to-dorsal")
_SHIFT = {"type": "translation", "translation": [-5.7, 6.0, 4.2]}
_ROTATION = {"type": "rotation", "rotation": [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]}
_FLIP = {"type": "affine", "affine": [[0.0, 0.0, 1.0, -5.7], [-1.0, 0.0, 0.0, 6.0], [0.0, -1.0, 0.0, 4.2]]}
_EXCHANGE = {"type": "affine", "affine": [[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]}

#: The metadata by the name of what the packager does, and how the axes of the array become R, A, S or stay p, i, r.
PACKED = {
    "axes p, i, r, rotated": (_packed("0.6.dev3", [_ROTATION, _SHIFT], _PIR, _IN_RAS), False),
    "axes p, i, r, shifted, then rotated": (_packed("0.6.dev3", [_SHIFT, _ROTATION], _PIR, _IN_RAS), False),
    "axes p, i, r, by an affine": (_packed("0.6", [_FLIP], _PIR, _IN_RAS), False),
    "axes r, a, s": (_packed("0.6.dev3", [_SHIFT], _IN_RAS, _IN_RAS), True),
    "axes r, a, s, exchanged": (_packed("0.6", [_SHIFT, _EXCHANGE], _IN_RAS, _IN_RAS[::-1], is_named=True), True),
}


def write_packed(root, style, is_label_group=False):
    """Write the tree with labels as the packager writes them, by a key of `PACKED`."""
    write_tree(root)
    ome, is_ras = PACKED[style]
    pir = labels()[::-1, ::-1].transpose(1, 0, 2)
    values = pir.transpose(2, 0, 1)[:, ::-1, ::-1] if is_ras else pir
    group = zarr.open_group(root / LABELS, mode="w", zarr_format=3)
    if is_label_group:
        group.require_group("labels/annotations_compressed")
    write_image(root / LABELS / ("labels/annotations_compressed" if is_label_group else ""), values, ome)
    return root
