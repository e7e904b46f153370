"""A terminology from and to structure graphs, terminology.csv and tables; look-ups in its tree; invalid input."""

import io
import json
import pickle
from ast import literal_eval
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaszarr import Terminology
from atlaszarr.errors import InputError, NotFoundError, RecordError
from atlaszarr.terminology.formats import COLUMNS, MISSING_TO_PANDAS
from atlaszarr.testing.ontology import structure_graph
from codes import raises

REAL_GRAPH = Path(__file__).parents[4] / "shared" / "data" / "ontology" / "structure_graph_1.json"


def node(id, acronym, *children, name=None, colour="00FF7f"):
    return {
        "id": id,
        "acronym": acronym,
        "name": name or f"the {acronym}",
        "color_hex_triplet": colour,
        "children": list(children),
    }


@pytest.fixture
def brain():
    """Eight structures: two acronyms that differ only in case, and one that pandas.read_csv reads as missing."""
    left = node(3000000001, "CM", node(30, "NA", name="not available"), node(31, "x", name="twin"))
    right = node(21, "cm", node(32, "y", name="twin"))
    graph = [node(997, "root", node(2, "grey", left, right), node(7, "997", name='fibres, "white"'))]
    return Terminology.from_structure_graph(graph)


@pytest.fixture
def table(brain):
    """The table of `brain` with every cell as text."""
    return pd.read_csv(io.StringIO(brain.to_csv()), dtype=str, keep_default_na=False)


# To and from files


def test_every_format_restores_the_same_terminology(brain, tmp_path):
    (tmp_path / "terminology.csv").write_text(brain.to_csv())
    assert Terminology.read(tmp_path / "terminology.csv") == brain
    assert Terminology.from_frame(brain.to_frame()) == brain
    assert brain.to_frame().to_csv(index=False) == brain.to_csv()
    assert pickle.loads(pickle.dumps(brain)) == brain


def test_the_table_has_the_published_columns_and_types(brain):
    frame = brain.to_frame()
    assert list(frame) == list(COLUMNS)
    root, grey = frame.iloc[0], frame.iloc[1]
    assert root.isna().to_dict() == {column: column == "parent_identifier" for column in COLUMNS}
    assert list(grey) == [2, 997, 2, "the grey", "grey", "#00FF7f", "[997, 2]"]
    assert brain.to_csv().splitlines()[1:3] == [
        "997,,997,the root,root,#00FF7f,[997]",
        '2,997,2,the grey,grey,#00FF7f,"[997, 2]"',
    ]


def test_a_plain_read_csv_reads_all_values_but_those_that_the_remarks_name(brain):
    frame = pd.read_csv(io.StringIO(brain.to_csv()))
    assert frame.identifier.tolist() == [structure.id for structure in brain]
    assert [tuple(literal_eval(path)) for path in frame.root_identifier_path] == [s.path for s in brain]
    assert frame[frame.abbreviation.isna()].identifier.tolist() == [30]
    (remark,) = brain.remarks
    assert "'NA'" in remark
    assert "30" in remark
    with raises(RecordError, "missing-value") as caught:
        Terminology.from_frame(frame)
    assert "30" in str(caught.value)
    assert Terminology.from_frame(pd.read_csv(io.StringIO(brain.to_csv()), keep_default_na=False)) == brain


def test_missing_to_pandas_lists_the_texts_that_pandas_reads_as_missing():
    candidates = sorted(MISSING_TO_PANDAS | {"Na", "na", "none", "nil", "NUL", "inf", "-", "N.A.", "NAN"})
    text = "".join(f'{number},"{candidate}"\n' for number, candidate in enumerate(candidates))
    read = pd.read_csv(io.StringIO(text), header=None)
    assert {candidates[number] for number in read[read[1].isna()][0]} == MISSING_TO_PANDAS


def test_a_structure_graph_is_read_with_and_without_the_api_s_envelope(tmp_path):
    answer = structure_graph()
    expected = Terminology.from_structure_graph(answer["msg"])
    for number, form in enumerate((answer, answer["msg"], answer["msg"][0])):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(form))
        assert Terminology.read(str(path)) == expected


def test_the_real_graph_keeps_its_order_and_its_figures(tmp_path):
    if not REAL_GRAPH.exists():
        pytest.skip("the shared data (../shared/data) is not here")
    real = Terminology.read(REAL_GRAPH)
    assert len(real) == 1327
    assert real.remarks == ()
    assert [s.acronym for s in real.ancestors("RSP")] == ["root", "grey", "CH", "CTX", "CTXpl", "Isocortex"]
    assert real["CM"].id != real["cm"].id
    assert real["IPF"].id != real["ipf"].id
    assert max(s.id for s in real) == 614454277
    (tmp_path / "terminology.csv").write_text(real.to_csv())
    assert Terminology.read(tmp_path / "terminology.csv") == real
    assert Terminology.from_frame(pd.read_csv(tmp_path / "terminology.csv")) == real
    orders = []

    def collect(nodes):
        for each in nodes:
            orders.append((each["graph_order"], each["id"]))
            collect(each["children"])

    collect(json.loads(REAL_GRAPH.read_text())["msg"])
    assert [id for _, id in sorted(orders)] == real.to_frame().identifier.tolist()


@pytest.mark.slow
@given(st.data())
def test_rows_in_any_order_give_the_tree_with_siblings_in_their_order(data):
    count = data.draw(st.integers(1, 30))
    parents = [None, *(data.draw(st.none() | st.integers(1, i)) for i in range(1, count))]
    ids = data.draw(st.permutations(range(1, count + 1)))
    rows = data.draw(st.permutations(range(count)))
    records = [
        {
            "identifier": ids[i],
            "parent_identifier": None if parents[i] is None else ids[parents[i] - 1],
            "annotation_value": None,
            "name": "same",
            "abbreviation": f"a{i}",
            "color_hex_triplet": "#000000",
            "root_identifier_path": None,
        }
        for i in rows
    ]
    frame = pd.DataFrame(records)
    found = Terminology.from_frame(frame)

    def chain(i):
        return [] if i is None else [*chain(None if parents[i] is None else parents[i] - 1), i]

    row_of = {i: position for position, i in enumerate(rows)}
    expected = sorted(range(count), key=lambda i: [row_of[j] for j in chain(i)])
    assert [s.id for s in found] == [ids[i] for i in expected]
    assert [s.path for s in found] == [tuple(ids[j] for j in chain(i)) for i in expected]
    for structure in found:
        assert found.descendants(structure.id) == tuple(s for s in found if structure.id in s.path)
    assert Terminology.from_frame(found.to_frame()) == found


# Look-ups


def test_structures_are_found_by_case_sensitive_acronym_then_name_then_id(brain):
    assert brain["CM"].id == 3000000001
    assert brain["cm"].id == 21
    assert brain["not available"] is brain["NA"] is brain[30] is brain[np.uint32(30)] is brain["30"]
    assert brain["997"].id == 7  # an acronym of digits comes before an id
    assert brain[997].acronym == "root"
    assert brain["root"] in brain
    assert "CM" in brain
    assert "Cm" not in brain
    assert None not in brain


@pytest.mark.parametrize(
    ("key", "code", "named"),
    [
        ("Cm", "structure-not-found", ["'Cm'", "did you mean CM, cm?"]),
        ("THE GREY", "structure-not-found", ["did you mean grey?"]),
        ("nowhere", "structure-not-found", ["'nowhere'"]),
        ("twin", "ambiguous-name", ["'twin'", "31 (x), 32 (y)"]),
        (5, "structure-not-found", ["5"]),
    ],
)
def test_an_unknown_key_is_named_with_similar_acronyms(brain, key, code, named):
    with raises(NotFoundError, code) as caught:
        brain[key]
    assert all(text in str(caught.value) for text in named)


def test_a_word_of_a_name_is_answered_with_the_structures_whose_names_hold_it():
    part = node(2, "hp-d", name="Dorsal hippocampal part")
    formation = node(3, "HPF", part, name="Hippocampal formation")
    brain = Terminology.from_structure_graph([node(1, "brain", node(4, "other"), formation)])
    for key in ("hippocampus", "HIPPOCAMPAL"):
        with raises(NotFoundError, "structure-not-found") as caught:
            brain[key]
        assert "did you mean HPF (Hippocampal formation), hp-d (Dorsal hippocampal part)?" in str(caught.value)


def test_a_key_that_is_neither_an_id_nor_a_text_is_refused(brain):
    with raises(InputError, "wrong-type"):
        brain[None]


def test_the_tree_has_ancestors_and_descendants(brain):
    acronyms = lambda structures: [structure.acronym for structure in structures]  # noqa: E731
    assert acronyms(brain.roots) == ["root"]
    assert acronyms(brain.children("root")) == ["grey", "997"]
    assert acronyms(brain.descendants("CM")) == ["CM", "NA", "x"]
    assert acronyms(brain.descendants("y")) == ["y"]
    assert brain.children("y") == ()
    assert acronyms(brain.ancestors("y")) == ["root", "grey", "cm"]
    assert brain.parent("y") == brain["cm"]
    assert brain.parent("root") is None
    assert brain.ancestors("root") == ()
    assert brain["grey"].rgb == (0, 255, 127)
    assert [s.parent_id for s in brain][:3] == [None, 997, 2]


# Invalid input


@pytest.mark.parametrize(
    ("row", "column", "value", "code", "named"),
    [
        (3, "identifier", "2", "duplicate-structure", "id 2 "),
        (1, "parent_identifier", "31", "parents-in-a-cycle", "structure 2 (grey)"),
        (1, "parent_identifier", "2", "parents-in-a-cycle", "structure 2 (grey)"),
        (1, "parent_identifier", "77", "missing-parent", "77"),
        (3, "root_identifier_path", "[997, 30]", "inconsistent-path", "[997, 2, 3000000001, 30]"),
        (3, "root_identifier_path", "/997/30/", "inconsistent-path", "[997, 2, 3000000001, 30]"),
        (3, "root_identifier_path", "997; 30", "invalid-path", "997; 30"),
        (3, "annotation_value", "2", "duplicate-annotation-value", "annotation_value 2"),
        (3, "annotation_value", "MBA:2", "invalid-id", "'MBA:2'"),
        (3, "identifier", "4294967296", "invalid-id", "4294967296"),
        (3, "identifier", "3.5", "invalid-id", "'3.5'"),
        (3, "identifier", "-3", "negative-id", "'-3'"),
        (3, "color_hex_triplet", "#FF000", "invalid-colour", "#FF000"),
    ],
)
def test_an_invalid_table_is_refused(table, tmp_path, row, column, value, code, named):
    table.loc[row, column] = value
    if column in ("identifier", "parent_identifier", "abbreviation"):
        table["root_identifier_path"] = ""
        table["annotation_value"] = ""
    table.to_csv(tmp_path / "terminology.csv", index=False)
    for read in (lambda: Terminology.read(tmp_path / "terminology.csv"), lambda: Terminology.from_frame(table)):
        with raises(RecordError, code) as caught:
            read()
        assert named in str(caught.value)


def test_parents_may_be_floats_as_pandas_writes_a_column_with_missing_values(brain, tmp_path):
    pd.read_csv(io.StringIO(brain.to_csv()), keep_default_na=False, na_values={"parent_identifier": [""]}).to_csv(
        tmp_path / "again.csv", index=False
    )
    assert "2,997.0,2," in (tmp_path / "again.csv").read_text()
    assert Terminology.read(tmp_path / "again.csv") == brain


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"", "missing-column", "'identifier'"),
        (b"identifier,name,depth\n1,a,1\n", "missing-column", "'parent_identifier'"),
        (",".join(COLUMNS).encode() + b"\n", "empty-terminology", ""),
        (",".join(COLUMNS).encode() + b"\n1,2\n", "wrong-cell-count", "line 2"),
        (b"\xff\xfe\x00", "not-a-terminology", ""),
        (b'{"success": true, "msg": [', "not-json", ""),
        (b'{"success": false, "msg": "no such graph"}', "query-refused", "no such graph"),
        (b'{"success": true, "msg": "no"}', "invalid-structure-graph", "'no'"),
        (b"[]", "empty-terminology", ""),
        (b"[1]", "invalid-structure-graph", "1"),
        (json.dumps([node(1, "a", node(1, "b"))]).encode(), "duplicate-structure", "id 1 "),
        (json.dumps([node(1, "a", {**node(2, "b"), "parent_structure_id": 9})]).encode(), "inconsistent-parent", "9"),
    ],
)
def test_an_invalid_file_is_refused(tmp_path, body, code, named):
    (tmp_path / "t").write_bytes(body)
    with raises(RecordError, code) as caught:
        Terminology.read(tmp_path / "t")
    assert named in str(caught.value)


def test_a_file_that_is_larger_than_any_terminology_is_refused_without_reading_all_of_it(tmp_path):
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(2**40)
    with raises(InputError, "file-too-large") as caught:
        Terminology.read(tmp_path / "large.csv")
    assert "large.csv" in str(caught.value)
    assert "16777216" in str(caught.value)
