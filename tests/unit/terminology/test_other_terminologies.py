"""Terminologies as other programs write them: each is read right, or refused in one sentence."""

import csv
import io
import json
import warnings

import numpy as np
import pandas as pd
import pytest

import lumps
from atlaszarr import Terminology, build_atlas, region_mask, region_volumes
from atlaszarr.brainglobe.demands import refuse_terminology
from atlaszarr.errors import AtlaszarrWarning, InputError, NotFoundError, RecordError
from atlaszarr.regions.tables import to_csv, to_json, to_parquet
from atlaszarr.terminology.rows import MOST_LEVELS, MOST_STRUCTURES
from atlaszarr.terminology.terminology import Structure
from codes import raises
from tiny_atlas import SET, write_sources

HEADER = "identifier,parent_identifier,annotation_value,name,abbreviation,color_hex_triplet,root_identifier_path"
STRUCTURE_TREE = (
    "id,atlas_id,name,acronym,st_level,ontology_id,hemisphere_id,weight,parent_structure_id,depth,graph_id,graph_order,"
    "structure_id_path,color_hex_triplet"
)
PARENTS = {id: parent for id, parent, *_ in lumps.ROWS}


def path_of(id):
    return [*(path_of(PARENTS[id]) if PARENTS[id] else []), id]


def slashed(id):
    return "/" + "/".join(map(str, path_of(id))) + "/"


def rgb(colour):
    return list(bytes.fromhex(colour[1:]))


def table(header, rows, separator=",", end="\n"):
    """A table as text."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end)
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return out.getvalue()


def terminology_rows(change=lambda row: row):
    rows = [
        [id, "" if parent is None else parent, id, name, acronym, colour, str(path_of(id))]
        for id, parent, name, acronym, colour in lumps.ROWS
    ]
    return [change(list(row)) for row in rows]


def changed(column, values):
    """Rows of a terminology.csv with other values in a column, by identifier."""

    def change(row):
        row[column] = values.get(row[0], row[column]) if isinstance(values, dict) else values(row[column])
        return row

    return terminology_rows(change)


def rma_rows():
    return [
        {
            "id": id,
            "atlas_id": None,
            "acronym": acronym,
            "name": name,
            "color_hex_triplet": colour[1:],
            "graph_id": 1,
            "graph_order": order,
            "parent_structure_id": parent,
            "structure_id_path": slashed(id),
        }
        for order, (id, parent, name, acronym, colour) in enumerate(lumps.ROWS)
    ]


def envelope(msg):
    return {"success": True, "id": 0, "start_row": 0, "num_rows": len(msg), "total_rows": len(msg), "msg": msg}


def structures_json():
    return [
        {"acronym": acronym, "id": id, "name": name, "structure_id_path": path_of(id), "rgb_triplet": rgb(colour)}
        for id, _, name, acronym, colour in lumps.ROWS
    ]


def abba(acronym="acronym"):
    """An ontology as ABBA saves it; its data has the parent 0 for the root."""

    def node(id):
        (_, parent, name, short, colour) = next(row for row in lumps.ROWS if row[0] == id)
        return {
            "id": id,
            "color": [*rgb(colour), 255],
            "data": {"id": str(id), "name": name, acronym: short, "parent_structure_id": str(parent or 0)},
            "children": [node(child) for child in PARENTS if PARENTS[child] == id],
        }

    return {"name": "lumps", "namingProperty": acronym, "root": node(997)}


def structure_tree(separator=","):
    rows = [
        [id, "", name, acronym, "", 1, 3, 8690, parent or "", len(path_of(id)), 1, 0, slashed(id), colour[1:]]
        for id, parent, name, acronym, colour in lumps.ROWS
    ]
    return table(STRUCTURE_TREE, rows, separator)


def long_structure_tree():
    """All columns of the API, as ibllib and cortex-lab have them; pandas made the parents floats."""
    more = "neuro_name_structure_id,neuro_name_structure_id_path,failed,sphinx_id,structure_name_facet,failed_facet"
    place = lambda id, parent: ["", 1, 3, 8690, float(parent) if parent else "", len(path_of(id)), 1, 0]  # noqa: E731
    end = ["", "", "f", 1, 385153371, 734881840]
    rows = [
        [id, "", name, acronym, *place(id, parent), slashed(id), colour[1:], *end, name.replace(",", "")]
        for id, parent, name, acronym, colour in lumps.ROWS
    ]
    return table(f"{STRUCTURE_TREE},{more},safe_name", rows)


def curies():
    """Identifiers are texts, and voxels hold the annotation_value; no path, columns in another order."""
    header = "name,identifier,annotation_value,parent_identifier,abbreviation,descendant_identifiers,color_hex_triplet"
    rows = [
        [name, f"LUMP:{n}", id, f"LUMP:{list(PARENTS).index(parent)}" if parent else "", acronym, "['a', 'b']", colour]
        for n, (id, parent, name, acronym, colour) in enumerate(lumps.ROWS)
    ]
    return table(header, rows)


def itksnap():
    lines = [
        "################################################",
        "# ITK-SnAP Label Description File",
        "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL",
        '    0     0    0    0        0  0  0    "Clear Label"',
    ]
    lines += [
        f'{id:>5}   {" ".join(map(str, rgb(colour)))}        1  1  1    "{acronym}"'
        for id, _, _, acronym, colour in lumps.ROWS
    ]
    return "\n".join(lines)


def freesurfer(head="#No. Label Name:                            R   G   B   A"):
    lines = ["#$Id: FreeSurferColorLUT.txt,v 1.70", "", head, "", "0   Unknown    0   0   0   0"]
    lines += [
        f"{id}   {acronym}    {'   '.join(map(str, rgb(colour)))}   0\n" for id, _, _, acronym, colour in lumps.ROWS
    ]
    return "\n".join(lines)


def pairs(separator, header=""):
    rows = [f"{id}{separator}{acronym}" for id, _, _, acronym, _ in lumps.ROWS]
    return "\n".join([*([header] if header else []), *rows])


NO_PATH = changed(6, lambda _: "")
READ = {
    "terminology.csv": table(HEADER, terminology_rows()),
    "semicolons": table(HEADER, terminology_rows(), ";"),
    "tabs": table(HEADER, terminology_rows(), "\t"),
    "spreadsheet": table(HEADER, terminology_rows(), end="\r\n").encode("utf-8-sig"),
    "old line ends": table(HEADER, terminology_rows(), end="\r"),
    "UTF-16": table(HEADER, terminology_rows()).encode("utf-16"),
    "columns in capitals, one without a name": table(HEADER.upper() + ",", [[*r, ""] for r in terminology_rows()]),
    "blank lines": table(HEADER, terminology_rows()).replace("\n8", "\n\n,,,,,,\n8") + "\n,,,,,,\n",
    "cells after the last column": table(HEADER, terminology_rows()).replace("\n8", "\n8", 1).replace("]\n", "],,\n"),
    "parents without paths": table(HEADER, NO_PATH),
    "paths without parents": table(HEADER, changed(1, lambda _: "")),
    "rows in reverse": table(HEADER, terminology_rows()[::-1]),
    "paths with slashes": table(HEADER, changed(6, {id: slashed(id) for id in PARENTS})),
    "paths with slashes between": table(HEADER, changed(6, {id: slashed(id)[1:-1] for id in PARENTS})),
    "colours without #": table(HEADER, changed(5, lambda colour: colour[1:])),
    "no annotation_value": table(HEADER, changed(2, lambda _: "")),
    "other identifiers than labels": table(HEADER, changed(0, {10: 1001, 20: 1002})).replace(", 10]", ", 1001]")
    .replace(", 20]", ", 1002]"),
    "CURIEs": curies(),
    "structure graph": json.dumps(envelope(lumps.graph())),
    "structure graph without envelope": json.dumps(lumps.graph()),
    "one node": json.dumps(lumps.graph()[0]),
    "RMA rows": json.dumps(envelope(rma_rows())),
    "RMA rows in reverse": json.dumps(envelope(rma_rows()[::-1])),
    "BrainGlobe's structures.json": json.dumps(structures_json()),
    "ABBA": json.dumps(abba()),
    "ABBA, rat": json.dumps(abba("abbreviation")),
    "structure tree": structure_tree(),
    "structure tree with all columns": long_structure_tree(),
}  # fmt: skip
#: What is read with a remark, and a word of it.
REMARKED = {
    "spaces": (table(HEADER, changed(4, {10: " LL "})), "spaces around them, which are removed: 10"),
    "no colour": (table(HEADER, changed(5, {10: ""})), "made up: 10"),
    "short colours": (table(HEADER, changed(5, {10: "1AA11", 8: "0"})), "leading zeros, which are restored: 8 (0), 10"),
    "no acronym": (table(HEADER, changed(4, {20: ""})), "without an acronym, which get their identifier: 20"),
    "no name": (table(HEADER, changed(3, {20: ""})), "without a name, which get their acronym: 20"),
    "Latin-1": (table(HEADER, changed(3, {20: "Région médiane"})).encode("latin-1"), "Latin-1: line 5"),
    "subtree": (json.dumps(lumps.graph()[0]["children"]), "which are roots: 8 (parent 997)"),
    "rows of a subtree": (json.dumps(envelope(rma_rows()[1:])), "which are roots: 8 (parent 997)"),
    "leaves": (json.dumps(envelope(rma_rows()[2:])), "which are roots: 10 (parent 8), 20 (parent 8), 614454277"),
    "BrainGlobe's structures.csv": (
        table(
            "acronym,id,name,structure_id_path,parent_structure_id",
            [[acronym, id, name, slashed(id), parent or ""] for id, parent, name, acronym, _ in lumps.ROWS],
        ),
        "without a colour, for which one is made up: 997, 8, 10, 20, 614454277",
    ),
    "IBL": (
        structure_tree().replace("\n997", "\n0,,void,void,,,,,,,,,,\n997", 1),
        "a name for 0, which is background and is left out: void",
    ),
    "ITK-SNAP": (itksnap(), "0, which is background and is left out: Clear Label"),
    "FreeSurfer": (freesurfer(), "0, which is background and is left out: Unknown"),
    "FreeSurfer, head without #": (freesurfer("No. Label Name:    R   G   B   A"), "a root: identifier 0"),
    "3D Slicer": (freesurfer("# Color table file"), "a root: identifier 0"),
    "pairs": (pairs(","), "a list of labels without a tree, which get a root: identifier 0, acronym 'root'"),
    "pairs with tabs": (pairs("\t"), "a list of labels"),
    "pairs with a header": (pairs(",", "id,name"), "a list of labels"),
    "pairs with a commented header": (pairs("\t", "# id\tname"), "a list of labels"),
    "pairs with another header": (
        pairs(";", "Nr;Region (Deutsch)"),
        "identifier and name: 'Nr' and 'Region (Deutsch)'",
    ),
    "labels": (pairs(",", "label,name"), "a list of labels"),
    "BIDS": (
        table("index,name,abbreviation,color,mapping", [[*r[:1], *r[2:], 1] for r in lumps.ROWS], "\t"),
        "a list of labels",
    ),
    "nodes without places": (
        json.dumps([{"id": id, "name": name, "acronym": acronym} for id, _, name, acronym, _ in lumps.ROWS]),
        "nor paths, all of which are roots: 5",
    ),
    "labels with colours": (
        "index,name,r,g,b\n" + "\n".join(f"{r[0]},{r[3]},{','.join(map(str, rgb(r[4])))}" for r in lumps.ROWS),
        "a list of labels",
    ),
}


@pytest.fixture
def read(tmp_path):
    """Read a terminology from text or bytes in a file."""

    def read(content):
        path = tmp_path / "terms"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Terminology.read(path)

    return read


def left_lump(terminology):
    """The row of LL in the region volumes of the labels that the terminology names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtlaszarrWarning)  # on labels that a subtree lacks
        volumes = region_volumes(lumps.labels(), terminology, by_hemisphere=True, voxel_size=200)
    return volumes.loc[terminology["LL"].id]


@pytest.mark.parametrize("content", [*READ.values(), *(content for content, _ in REMARKED.values())],
                         ids=[*READ, *REMARKED])  # fmt: skip
def test_a_terminology_of_another_program_gives_the_same_volumes(read, content):
    found = read(content)
    row = left_lump(found)
    assert row["volume_mm3"] == pytest.approx(lumps.LL_MM3)
    assert row["volume_left_mm3"] == pytest.approx(lumps.LL_MM3)
    assert found["LL"].value == 10
    assert Terminology.from_frame(found.to_frame()) == found
    assert read(found.to_csv()) == found


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_a_whole_terminology_is_the_same_in_every_form(read, content):
    found = read(content)
    assert [
        (s.acronym, s.name, s.colour, s.value, len(s.path)) for s in sorted(found, key=lambda s: s.value)
    ] == sorted(
        ((acronym, name, colour, id, len(path_of(id))) for id, _, name, acronym, colour in lumps.ROWS),
        key=lambda row: row[3],
    )
    assert found.remarks == ()


@pytest.mark.parametrize(("content", "said"), REMARKED.values(), ids=REMARKED)
def test_what_is_replaced_is_said(read, content, said):
    remarks = read(content).remarks
    assert any(said in remark for remark in remarks), remarks


def test_an_acronym_that_is_missing_to_pandas_stays_text_in_a_file(read):
    assert read(table(HEADER, changed(4, {20: "NA"})))[20].acronym == "NA"


def test_made_up_colours_are_distinct_and_the_same_every_time(read):
    rows = "\n".join(f"{id},region {id}" for id in range(1, 2000))
    first, second = read(rows), read(rows)
    assert first == second
    assert len({structure.colour for structure in first}) == 2000
    assert read(table(HEADER, changed(5, {10: "", 20: "#9E3779"})))["LL"].colour != "#9E3779"


# Identifiers and labels


def test_identifiers_name_structures_and_labels_count_voxels(read):
    terminology = read(curies())
    assert terminology["LUMP:2"] is terminology["LL"]
    assert (terminology["LL"].id, terminology["LL"].value, terminology["LL"].parent_id) == ("LUMP:2", 10, "LUMP:1")
    assert terminology.ancestors("LL") == (terminology["LUMP:0"], terminology["LUMP:1"])
    assert terminology.parent("LL") == terminology["grey"]
    volumes = region_volumes(lumps.labels(), terminology, voxel_size=200)
    assert volumes.loc["LUMP:0", "voxels"] == np.count_nonzero(lumps.labels())
    assert region_mask(lumps.labels(), terminology, "LL").compute().sum() == 480
    frame = terminology.to_frame()
    assert frame["identifier"].tolist() == ["LUMP:0", "LUMP:1", "LUMP:2", "LUMP:3", "LUMP:4"]
    assert frame["root_identifier_path"].iloc[2] == "['LUMP:0', 'LUMP:1', 'LUMP:2']"


def test_an_empty_annotation_value_is_no_label_where_others_differ_from_their_identifiers(read):
    groups = read(table(HEADER, changed(2, {997: "", 8: "", 10: 8, 20: 7, 614454277: 6})))
    assert [structure.value for structure in groups] == [None, None, 8, 7, 6]
    assert groups.to_frame()["annotation_value"].isna().tolist() == [True, True, False, False, False]
    assert Terminology.from_frame(groups.to_frame()) == groups
    volumes = region_volumes(np.full((1, 1, 4), 8, np.uint8), groups, voxel_size=1000)
    assert volumes.loc[[997, 8, 10], "voxels"].tolist() == [4, 4, 4]
    assert volumes["voxels_direct"].tolist() == [0, 0, 4, 0, 0]
    assert region_mask(np.full((1, 1, 4), 8, np.uint8), groups, 20).compute().sum() == 0


@pytest.mark.parametrize(
    ("content", "unknown"),
    [
        (READ["terminology.csv"], 1001),
        (READ["other identifiers than labels"], -1001),
        (table(HEADER, [*terminology_rows(), [1001, 8, 0, "group", "G", "#000000", ""]]), -1001),
        (READ["CURIEs"], "label 1001"),
    ],
    ids=["labels are identifiers", "labels differ", "one has no label", "texts"],
)
def test_an_unknown_label_is_never_taken_for_a_structure(read, content, unknown):
    values = np.array([[[10, 10, 1001]]], np.uint32)
    with pytest.warns(AtlaszarrWarning, match="1001"):
        volumes = region_volumes(values, read(content), voxel_size=1000)
    assert volumes.index.is_unique
    assert volumes.index[-1] == unknown
    assert volumes.loc[unknown, "voxels"] == 1
    assert volumes.loc[read(content)["LL"].id, "voxels"] == 2
    assert pd.read_parquet(io.BytesIO(to_parquet(volumes)))["voxels"].tolist() == volumes["voxels"].tolist()
    assert json.loads(to_json(volumes))["regions"][-1]["identifier"] == unknown
    assert to_csv(volumes).splitlines()[-1].startswith(f"{unknown},")


def test_an_unknown_negative_label_is_never_taken_for_a_structure(read):
    structures = read(table(HEADER, [[1001, "", 10, "one", "one", "#000000", ""]]))
    with pytest.warns(AtlaszarrWarning, match="-1001"):
        volumes = region_volumes(np.array([[[10, 10, -1001]]], np.int32), structures, voxel_size=1000)
    assert volumes["voxels"].to_dict() == {1001: 2, "label -1001": 1}


def test_an_annotation_value_of_0_is_no_label(read):
    found = read(table(HEADER, changed(2, {997: 0, 8: "", 10: "", 20: 0, 614454277: ""})))
    assert [structure.value for structure in found] == [None, 8, 10, None, 614454277]
    assert read(found.to_csv()) == Terminology.from_frame(found.to_frame()) == found


def test_a_root_may_be_0_and_there_may_be_several_roots(read):
    node = {"acronym": "universe", "name": "universe", "color_hex_triplet": "000000"}
    brain = {"acronym": "brain", "name": "brain", "color_hex_triplet": "FFFFFF", "parent_structure_id": 0}
    found = read(json.dumps(envelope([{"id": 0, **node, "children": [{"id": 997, **brain, "children": []}]}])))
    assert [(s.id, s.value, s.path) for s in found] == [(0, None, (0,)), (997, 997, (0, 997))]
    assert read(found.to_csv()) == found
    with pytest.warns(AtlaszarrWarning, match="not in the terminology: 5"):
        volumes = region_volumes(np.array([[[0, 997, 5]]], np.uint16), found, voxel_size=1000)
    assert volumes["voxels"].to_dict() == {0: 1, 997: 1, 5: 1}
    two = read(table(HEADER, [[1, "", "", "one", "a", "#000000", ""], [2, "", "", "two", "b", "#000000", ""]]))
    assert [structure.id for structure in two.roots] == [1, 2]


def test_a_structure_has_its_identifier_as_label_unless_it_has_another():
    assert Structure(7, "a", "a", "#000000", (7,)).value == 7
    assert Structure(7, "a", "a", "#000000", (7,), 9).value == 9
    assert Structure(7, "a", "a", "#000000", (7,), None).value is None
    assert Structure(0, "a", "a", "#000000", (0,)).value is None
    assert Structure("MBA:7", "a", "a", "#000000", ("MBA:7",)).value is None


# Shared acronyms


def test_an_ambiguous_acronym_lists_the_candidates(read):
    human = [
        {"id": id, "acronym": "Cl" if id > 1 else "Br", "name": name, "color_hex_triplet": "AABBCC", "children": []}
        for id, name in ((1, "brain"), (2, "claustrum"), (3, "claustrum, left"), (4, "claustrum, right"))
    ]
    human[1]["children"] = human[2:]
    human[0]["children"] = [human[1]]
    terminology = read(json.dumps(envelope(human[:1])))
    with raises(NotFoundError, "ambiguous-acronym") as caught:
        terminology["Cl"]
    assert "'Cl' belongs to structures 2 (claustrum), 3 (claustrum, left), 4 (claustrum, right)" in str(caught.value)
    assert "Cl" not in terminology
    assert terminology["claustrum, left"].id == 3
    assert "several structures; ask for these by name or identifier: Cl" in terminology.remarks[0]
    volumes = region_volumes(np.array([[[2, 3, 3, 4]]], np.uint8), terminology, voxel_size=1000)
    assert volumes["voxels"].tolist() == [4, 4, 2, 1]
    with raises(RecordError, "wrong-root"):
        refuse_terminology(terminology)
    alike = table(HEADER, changed(4, {20: "LL"}))
    with raises(RecordError, "duplicate-acronym") as caught:
        refuse_terminology(read(alike))
    assert "10 and 20 have the acronym 'LL'" in str(caught.value)


def test_an_acronym_of_digits_comes_before_an_identifier(read):
    found = read(table(HEADER, changed(4, {20: "10"})))
    assert found["10"].id == 20
    assert found[10].acronym == "LL"


def test_a_key_of_5000_digits_is_an_unknown_structure(read):
    with raises(NotFoundError, "structure-not-found"):
        read(READ["terminology.csv"])["9" * 5000]


# An atlas


def test_an_atlas_names_labels_by_their_structures(tmp_path):
    sources = write_sources(tmp_path / "sources")
    terms = tmp_path / "terms.csv"
    rows = [
        ["T:0", "", 997, "root", "root", "#FFFFFF", ""],
        ["T:1", "T:0", 3, "Area A", "A", "#FF7080", ""],
        ["T:2", "T:0", 3_000_000_003, "Area B", "A", "#0000FF", ""],
        ["T:3", "T:0", 7, "Area C", "C", "", ""],
    ]
    terms.write_text(table(HEADER, rows))
    report = build_atlas(tmp_path / "atlas", **(sources | {"ontology": terms}))
    assert any("made up: T:3" in remark for remark in report.remarks)
    image = json.loads((tmp_path / "atlas" / SET / "annotation.ome.zarr" / "zarr.json").read_bytes())
    properties = image["attributes"]["ome"]["image-label"]["properties"]
    assert [(each["label-value"], each["name"]) for each in properties] == [
        (3, "Area A"),
        (7, "Area C"),
        (997, "root"),
        (3_000_000_003, "Area B"),
    ]
    volumes = pd.read_csv(tmp_path / "atlas" / SET / "volumes.csv", index_col="identifier")
    assert volumes.loc["T:0", "voxels"] == volumes["voxels_direct"].sum()
    assert Terminology.read(tmp_path / "atlas" / SET / "terminology.csv") == Terminology.read(terms)


@pytest.mark.parametrize(
    ("terminology", "code", "named"),
    [
        ("CURIEs", "invalid-id", "LUMP:0 (root)"),
        ("other identifiers than labels", "identifier-is-not-label", "1001 (LL) hold 10"),
        ("pairs", "invalid-id", "0 (root)"),
    ],
)
def test_brainglobe_needs_identifiers_that_are_labels(tmp_path, read, terminology, code, named):
    sources = write_sources(tmp_path / "sources")
    content = READ.get(terminology) or REMARKED[terminology][0]
    options = sources | {"ontology": read(content), "brainglobe": True, "allow_unknown": True}
    with raises(RecordError, code) as caught:
        refuse_terminology(options["ontology"])
    assert named in str(caught.value)
    with pytest.raises((RecordError, InputError)):
        build_atlas(tmp_path / "atlas", **options)
    assert not (tmp_path / "atlas").exists()


# Refused


def chain(length):
    return table(HEADER, [[id, id - 1 or "", "", f"r{id}", f"r{id}", "#000000", ""] for id in range(1, length + 1)])


def nested(depth):
    return "".join(f'{{"id": {id}, "name": "a", "children": [' for id in range(depth)) + "]}" * depth


TERMS = READ["terminology.csv"]
REFUSED = {
    "identifier twice": (table(HEADER, changed(0, {20: 10})), "duplicate-structure", "id 10 more than once"),
    "label twice": (table(HEADER, changed(2, {20: 10})), "duplicate-annotation-value", "10 (LL) and 20 (MID)"),
    "negative identifier": (table(HEADER, changed(0, {20: -10})), "negative-id", "left and right"),
    "negative label": (table(HEADER, changed(2, {20: -10})), "negative-id", "line 5"),
    "negative in a graph": (json.dumps([{**lumps.graph()[0], "id": -997}]), "negative-id", "-997"),
    "negative in a list": (pairs(",") + "\n-10,LL", "negative-id", "line 6"),
    "label too large": (table(HEADER, changed(2, {20: 2**32})), "invalid-id", "4294967296"),
    "identifier of 5000 digits": (table(HEADER, changed(0, {20: "9" * 5000})), "invalid-id", "line 5"),
    "identifier of 5000 digits in JSON": (f'[{{"id": {"9" * 5000}, "name": "a"}}]', "invalid-id", "999"),
    "identifier is true": (json.dumps([{"id": True, "name": "a"}]), "invalid-id", "True"),
    "identifier is a list": (json.dumps([{"id": [[1]], "name": "a"}]), "invalid-id", "[[1]]"),
    "identifier with spaces": (table(HEADER, changed(0, {20: "a b"})), "invalid-id", "'a b'"),
    "path and parent disagree": (table(HEADER, changed(1, {20: 997})), "inconsistent-path", "20 (MID)"),
    "path to another": (table(HEADER, changed(6, {20: "[997, 8, 10]"})), "inconsistent-path", "lead from a root to 20"),
    "path from elsewhere": (table(HEADER, changed(6, {20: "[5, 997, 8, 20]"})), "inconsistent-path", "20 (MID)"),
    "path that is text": (table(HEADER, changed(6, {20: "root > grey"})), "invalid-path", "line 5"),
    "empty path": ('[{"id": 1, "name": "a", "structure_id_path": []}]', "invalid-path", "[]"),
    "colour": (table(HEADER, changed(5, {20: "red"})), "invalid-colour", "line 5: structure 20 has the colour 'red'"),
    "colour of four digits": (table(HEADER, changed(5, {20: "#1AA1"})), "invalid-colour", "#1AA1"),
    "channel": (json.dumps([{"id": 1, "name": "a", "rgb_triplet": [0, 256, 0]}]), "invalid-colour", "256"),
    "parent missing": (table(HEADER, changed(1, {20: 7})).replace('"[997, 8, 20]"', ""), "missing-parent", "line 5"),
    "long name": (table(HEADER, changed(3, {20: "x" * 1001})), "text-too-long", "1001 characters"),
    "null character": ('[{"id": 1, "name": "\\u0000"}]', "invalid-text", "structure 1"),
    "half a surrogate pair": ('[{"id": 1, "name": "\\ud800"}]', "invalid-text", "structure 1"),
    "neither name nor acronym": ('[{"id": 1, "type": "Feature"}]', "missing-value", "structure 1"),
    "some of the rows": (json.dumps(envelope(rma_rows()) | {"total_rows": 1327}), "incomplete-answer", "5 of 1327"),
    "JSON without nodes": ('{"features": [1]}', "invalid-structure-graph", "features"),
    "key twice": ('[{"id": 1, "id": 2, "name": "a"}]', "duplicate-key", "'id'"),
    "NaN in JSON": ('[{"id": NaN, "name": "a"}]', "not-json", "NaN"),
    "JSON cut short": (json.dumps(lumps.graph())[:-9], "not-json", ""),
    "deep JSON": ("[" * 100_000, "terminology-too-deep", "nested"),
    "deep graph": (nested(300), "terminology-too-deep", str(MOST_LEVELS)),
    "one chain": (chain(100_000), "terminology-too-deep", str(MOST_LEVELS)),
    "too many structures": (
        "\n".join(f"{id},r" for id in range(1, MOST_STRUCTURES + 10)), "too-many-structures", str(MOST_STRUCTURES)
    ),
    "too many lines": ("\n" * (10 * MOST_STRUCTURES + 1), "too-many-structures", "lines"),
    "too many objects": ("[" + "{}," * 10 * MOST_STRUCTURES + "{}]", "too-many-structures", "objects"),
    "long header": ("id,name," * 20_000, "text-too-long", "160000 characters"),
    "long path": (table(HEADER, changed(6, {20: "1/" * 50_000})), "terminology-too-deep", "50000 levels"),
    "cell of 200 kB": (table(HEADER, changed(3, {20: "x" * 200_000})), "invalid-csv", "line 5"),
    "quote that is not closed": (TERMS.replace("Left lump", '"Left lump'), "invalid-csv", ""),
    "too few cells": (TERMS + "5,8\n", "wrong-cell-count", "line 7 has 2 cells for 7 columns"),
    "a comma that is not quoted": (pairs(",") + "\n5,Middle, deep part", "wrong-cell-count", "line 6"),
    "no header": ("5,8,x\n", "missing-column", "line 1"),
    "numbers": ("1,2\n3,4\n", "missing-column", ""),
    "other columns": ("a,b\n1,2\n", "missing-column", "'a,b'"),
    "a misspelt parent": (TERMS.replace("parent_identifier", "parent_identifer").replace("root_id", "rootid"),
                          "missing-column", "'parent_identifer'"),
    "a column twice": (TERMS.replace("annotation_value", "Name"), "duplicate-column", "'Name'"),
    "other encodings": (table(HEADER, changed(3, {20: "Région"})).encode("mac-roman"), "unknown-encoding", "line 5"),
    "two encodings": (
        table(HEADER, changed(3, {10: "Région"})).encode() + "5,8,5,Région,R,#000000,\n".encode("latin-1"),
        "unknown-encoding", "line 4",
    ),
    "binary": (b"\x89PNG\r\n\x1a\n\0\0", "not-a-terminology", ""),
    "half of UTF-16": (TERMS.encode("utf-16")[:-1], "not-a-terminology", ""),
    "line of a label file": (itksnap() + "\n 5 255 0 0 Left lump", "invalid-label-line", "line 10"),
    "line of a colour table": (freesurfer() + "\n5 Left lump 1 2 3 0", "invalid-label-line", "line 16"),
    "channel of a colour table": (freesurfer() + "\n5 Left 1 2 300 0", "invalid-colour", "line 16"),
    "empty": ("", "missing-column", ""),
    "only comments": ("# id,name\n\n", "missing-column", ""),
    "only background": ("0,background\n", "empty-terminology", ""),
}  # fmt: skip


@pytest.mark.parametrize(("content", "code", "named"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(read, content, code, named):
    with raises(RecordError, code) as caught:
        read(content)
    assert named in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_carriage_return_in_a_name_survives_a_terminology_csv(read):
    terminology = Terminology((Structure(1, "a", "one\rtwo", "#000000", (1,)),))
    assert read(terminology.to_csv()) == terminology


def test_the_command_lists_the_candidates_of_an_acronym(command, tmp_path):
    from small_annotation import CSV, write_annotation

    annotation = write_annotation(tmp_path)
    (tmp_path / "terminology.csv").write_text(CSV.replace("NIL", "RSP"))
    ran = command("volumes", annotation, "--region", "RSP")
    assert (ran.code, ran.out) == (2, "")
    assert "3 (Retrosplenial area), 4 (Nothing)" in ran.err
    assert command("volumes", annotation, "--region", "3").out == "Retrosplenial area: 1.50 mm3\n"
