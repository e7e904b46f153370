"""The tables of the standard "Atlas Asset Organization": descendants, as CSV and as Parquet, and back."""

import csv
import io
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlaszarr import Terminology
from atlaszarr.errors import RecordError
from atlaszarr.terminology.formats import STANDARD_COLUMNS
from atlaszarr.terminology.terminology import Structure
from codes import raises

REAL_GRAPH = Path(__file__).parents[4] / "shared" / "data" / "ontology" / "structure_graph_1.json"


def made(*rows):
    """A terminology of (id, acronym, path, value)."""
    return Terminology(
        tuple(Structure(id, name, f"the {name}", "#00FF7F", path, value) for id, name, path, value in rows)
    )


NUMBERS = made((997, "root", (997,), 997), (8, "grey", (997, 8), 8), (3, "a", (997, 8, 3), 3), (7, "b", (997, 7), 7))
CURIES = made(
    ("MBA:997", "root", ("MBA:997",), 1),
    ("MBA:8", "grey", ("MBA:997", "MBA:8"), None),
    ("MBA:3", "a", ("MBA:997", "MBA:8", "MBA:3"), 4_000_000_000),
    ("MBA:7", "b", ("MBA:997", "MBA:7"), 3),
)
#: Numbers as identifiers, and a structure without voxels, whose identifier must not become its label.
WITHOUT_LABEL = made((1, "root", (1,), None), (2, "a", (1, 2), 2), (3, "b", (1, 3), None))
SEVERAL_ROOTS = made((1, "left", (1,), 1), (2, "a", (1, 2), 2), (5, "right", (5,), 5), (6, "a", (5, 6), 6))
ALL = {"numbers": NUMBERS, "CURIEs": CURIES, "without label": WITHOUT_LABEL, "several roots": SEVERAL_ROOTS}


def rows_of(terminology):
    return list(csv.DictReader(io.StringIO(terminology.to_csv(descendants=True))))


def read(tmp_path, name, body):
    path = tmp_path / name
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return Terminology.read(path)


def test_the_columns_are_those_of_the_standard_in_its_order():
    assert list(rows_of(NUMBERS)[0]) == [
        "identifier", "parent_identifier", "annotation_value", "name", "abbreviation", "color_hex_triplet",
        "descendant_identifiers", "descendant_annotation_values", "root_identifier_path",
    ]  # fmt: skip


def test_descendants_include_the_structure_itself_in_the_order_of_the_graph():
    rows = {row["identifier"]: row for row in rows_of(NUMBERS)}
    assert rows["997"]["descendant_identifiers"] == "[997, 8, 3, 7]"
    assert rows["8"]["descendant_annotation_values"] == "[8, 3]"
    assert rows["3"]["descendant_identifiers"] == "[3]"


def test_curies_are_quoted_as_python_does_and_values_are_those_of_voxels():
    rows = {row["identifier"]: row for row in rows_of(CURIES)}
    assert rows["MBA:8"]["descendant_identifiers"] == "['MBA:8', 'MBA:3']"
    assert rows["MBA:8"]["descendant_annotation_values"] == "[4000000000]"
    assert rows["MBA:8"]["annotation_value"] == ""
    assert rows["MBA:997"]["descendant_annotation_values"] == "[1, 4000000000, 3]"


def test_a_structure_without_a_label_is_empty_and_in_no_list():
    rows = rows_of(WITHOUT_LABEL)
    assert [row["annotation_value"] for row in rows] == ["", "2", ""]
    assert [row["descendant_annotation_values"] for row in rows] == ["[2]", "[2]", "[]"]


@pytest.mark.parametrize("terminology", ALL.values(), ids=ALL)
def test_csv_and_parquet_restore_the_terminology(terminology, tmp_path):
    assert read(tmp_path, "terminology.csv", terminology.to_csv(descendants=True)) == terminology
    assert read(tmp_path, "terminology.parquet", terminology.to_parquet()) == terminology


@pytest.mark.parametrize("terminology", ALL.values(), ids=ALL)
def test_csv_and_parquet_have_the_same_columns_and_values(terminology):
    table = pq.read_table(pa.BufferReader(terminology.to_parquet()))
    assert tuple(table.column_names) == STANDARD_COLUMNS
    for row, stored in zip(rows_of(terminology), table.to_pylist(), strict=True):
        for column, text in row.items():
            value = stored[column]
            assert (literal_eval(text) if isinstance(value, list) else text) == (
                value if isinstance(value, list) else "" if value is None else str(value)
            )


def test_the_same_terminology_has_the_same_bytes():
    assert CURIES.to_parquet() == CURIES.to_parquet()
    assert made(*((s.id, s.acronym, s.path, s.value) for s in CURIES)).to_parquet() == CURIES.to_parquet()


def test_numbers_and_lists_have_the_types_of_the_standard():
    schema = pq.read_schema(pa.BufferReader(NUMBERS.to_parquet()))
    assert schema.field("identifier").type == schema.field("annotation_value").type == pa.int64()
    assert schema.field("descendant_identifiers").type.value_type == pa.int64()
    schema = pq.read_schema(pa.BufferReader(CURIES.to_parquet()))
    assert schema.field("identifier").type == schema.field("descendant_identifiers").type.value_type == pa.string()
    assert schema.field("descendant_annotation_values").type.value_type == pa.int64()


def test_the_table_without_descendants_stays_as_it_was():
    assert NUMBERS.to_csv().splitlines()[1] == "997,,997,the root,root,#00FF7F,[997]"


def test_a_table_of_the_standard_that_excludes_the_structure_itself_is_read(tmp_path):
    lines = [
        "identifier,parent_identifier,annotation_value,name,abbreviation,color_hex_triplet,descendant_identifiers,"
        "descendant_annotation_values,root_identifier_path",
        '1,,,the root,root,#00FF7F,"[2, 3]","[2]",[1]',
        '2,1,2,the a,a,#00FF7F,,,"[1, 2]"',
        '3,1,,the b,b,#00FF7F,,,"[1, 3]"',
    ]
    assert read(tmp_path, "terminology.csv", "\n".join(lines)) == WITHOUT_LABEL


def test_a_parquet_that_pandas_wrote_with_missing_numbers_is_read(tmp_path):
    frame = pd.read_csv(io.StringIO(NUMBERS.to_csv()))  # parents are float64
    frame.to_parquet(tmp_path / "x.parquet")
    assert Terminology.read(tmp_path / "x.parquet") == NUMBERS


def test_a_text_that_every_row_repeats_takes_its_memory_once(tmp_path):
    rows, text = 50_000, "x" * 2**20
    table = pa.table(
        {
            "identifier": range(1, rows + 1),
            "parent_identifier": [None] + [1] * (rows - 1),
            "name": pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", store_schema=False)
    with raises(RecordError, "text-too-long"):
        Terminology.read(tmp_path / "x.parquet")


@pytest.mark.slow
def test_more_bytes_than_a_terminology_has_are_refused_before_they_are_decoded(tmp_path):
    table = pa.table({"identifier": range(300), "parent_identifier": [None] + [0] * 299, "name": ["x" * 2**20] * 300})
    pq.write_table(table, tmp_path / "x.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "x.parquet").stat().st_size < 2**24
    with raises(RecordError, "file-too-large"):
        Terminology.read(tmp_path / "x.parquet")


def test_more_rows_than_a_terminology_has_are_refused(tmp_path):
    pq.write_table(pa.table({"identifier": range(200_000)}), tmp_path / "x.parquet")
    with raises(RecordError, "too-many-structures") as caught:
        Terminology.read(tmp_path / "x.parquet")
    assert "200000" in str(caught.value)


@pytest.mark.parametrize("cut", [4, 100, -8, -20])
def test_a_damaged_parquet_is_named(tmp_path, cut):
    with raises(RecordError, "invalid-parquet") as caught:
        read(tmp_path, "terminology.parquet", NUMBERS.to_parquet()[:cut])
    assert "terminology.parquet" in str(caught.value)


#: Reads a file with each of its bytes changed in turn; in a child process, which a fault of pyarrow may end.
FLIPPING = """
import sys
from pathlib import Path
from atlaszarr import Terminology
from atlaszarr.errors import AtlaszarrError

path, codes = Path(sys.argv[1]), set()
body = path.read_bytes()
for position in range(4, len(body), 10):
    for bits in (1, 128, 255):
        changed = bytearray(body)
        changed[position] ^= bits
        path.write_bytes(changed)
        try:
            Terminology.read(path)
        except AtlaszarrError as error:
            codes.add(error.code)
print(*codes)
"""


def test_a_changed_byte_of_a_parquet_never_ends_the_process_nor_raises_another_error(tmp_path):
    (tmp_path / "terminology.parquet").write_bytes(CURIES.to_parquet())
    command = [sys.executable, "-c", FLIPPING, str(tmp_path / "terminology.parquet")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr
    assert "invalid-parquet" in ran.stdout.split()


def test_lists_that_no_reader_of_csv_takes_are_refused():
    many = made((1, "root", (1,), 1), *((id, f"s{id}", (1, id), id) for id in range(100_000, 120_000)))
    with raises(RecordError, "text-too-long") as caught:
        many.to_csv(descendants=True)
    assert "descendant_identifiers of structure 1" in str(caught.value)


@pytest.mark.skipif(not REAL_GRAPH.is_file(), reason="needs the real data in ../shared/data")
def test_the_real_terminology_has_the_known_descendants(tmp_path):
    real = Terminology.read(REAL_GRAPH)
    rows = {row["abbreviation"]: row for row in rows_of(real)}
    assert len(literal_eval(rows["root"]["descendant_identifiers"])) == 1327
    assert len(literal_eval(rows["RSP"]["descendant_annotation_values"])) == len(real.descendants("RSP"))
    assert read(tmp_path, "terminology.csv", real.to_csv(descendants=True)) == real
    assert read(tmp_path, "terminology.parquet", real.to_parquet()) == real
