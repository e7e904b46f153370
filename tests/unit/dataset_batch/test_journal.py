"""The journal of a batch: what is read back, what is left out, and the table made of it."""

import csv
import io

import pytest

from atlaszarr.dataset_batch.journal import Journal, Row
from atlaszarr.engine import ledger
from atlaszarr.errors import TargetError
from atlaszarr.stores.target import Target

ROWS = [
    Row(1, "built", "Calb1", 2.5, 60, 10**9, measured=True),
    Row(2, "failed", code="store-unreachable", message='the store says "no",\nand é', passing=True),
    Row(3, "unfinished", failures=2, code="image-missing", message="HTTP status 404"),
    Row(2, "resumed", "Prox1", 1.0, 18, 5),
]


@pytest.fixture
def target(tmp_path):
    return Target.of(tmp_path / "batch")


def write(target, rows):
    journal = Journal(target)
    for row in rows:
        journal.add(row)
    journal.close()
    return journal


def parts(target):
    return sorted(target.list_keys("journal"))


def test_rows_are_read_back_and_the_last_of_a_dataset_counts(target):
    write(target, ROWS[:2])
    journal = write(target, ROWS[2:])
    assert list(journal.rows()) == ROWS
    assert len(parts(target)) == 2
    assert Journal(target).finished() == {1, 2}
    assert Journal(target).finished(measured=True) == {1}
    write(target, [Row(1, "failed", code="x")])
    assert Journal(target).finished() == {2}


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-5],
        lambda line: line.replace(b"resumed", b"reshaped"),
        lambda _: b"",
        lambda _: b"\xff\x00",
        lambda _: ledger.sealed({"dataset": 2}),
        lambda _: ledger.sealed({"dataset": "2", "state": "built"}),
        lambda _: ledger.sealed({"dataset": 2, "state": "built", "seconds": "1"}),
        lambda _: ledger.sealed({"dataset": 2, "state": "built", "of a later version": 1}),
        lambda _: ledger.sealed(["no object"]),
    ],
)
def test_a_damaged_line_is_left_out(damage, target):
    write(target, ROWS)
    (key,) = parts(target)
    *lines, last, _ = target.read(key).split(b"\n")
    target.write(key, b"\n".join([*lines, damage(last)]))
    assert list(Journal(target).rows()) == ROWS[:3]
    assert Journal(target).finished() == {1}


def test_lines_are_collected_in_parts(target):
    rows = [Row(id, "built") for id in range(600)]
    assert list(write(target, rows).rows()) == rows
    assert [target.read(key).count(b"\n") for key in parts(target)] == [256, 256, 88]


def test_the_table_has_the_last_row_of_each_dataset(target):
    location = write(target, ROWS).write_table()
    assert location == f"{target.url}/batch.csv"
    rows = list(csv.DictReader(io.StringIO(target.read("batch.csv").decode(), newline="")))
    assert [row["dataset"] for row in rows] == ["1", "3", "2"]
    assert rows[0]["seconds"] == "2.5"
    assert rows[2]["gene"] == "Prox1"
    assert "passing" not in rows[0]


def test_a_journal_is_removed_with_its_table(target):
    write(target, ROWS).write_table()
    target.write("batch.json", b"{}")
    Journal(target).clear()
    assert target.list_keys() == ["batch.json"]
    assert list(Journal(target).rows()) == []


def test_a_part_that_is_too_large_is_left_out(target):
    target.write("journal/000001-x.jsonl", bytes(2**23 + 1))
    write(target, ROWS)
    assert list(Journal(target).rows()) == ROWS


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "batch").write_text("a file where the folder must be")
    with pytest.raises(TargetError):
        write(Target.of(tmp_path / "batch"), ROWS)
