"""What the volumes of a batch show in the regions of an annotation: a part for each dataset, joined to one table."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..stores.target import Target

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FOLDER = "measure"
TABLE = "measure.parquet"
#: Parts of one row group: some 40,000 rows of the CCF, 5 MB.
_AT_ONCE = 32
#: The most bytes of a part: a hundred times that of the CCF by hemisphere.
_LARGEST_PART = 2**27
#: The most bytes of a part, uncompressed: eight times as many, numbers compress to a half and names to a tenth.
_LARGEST_TABLE = 2**30


def write_part(folder: Target, dataset: int, gene: str, statistics: pd.DataFrame) -> None:
    """Write the statistics of a dataset, with its id and gene in the first columns."""
    table = statistics.reset_index()
    table.insert(0, "gene", gene)
    table.insert(0, "dataset", dataset)
    table.attrs = {}  # what differs between the parts of one table
    body = io.BytesIO()
    table.to_parquet(body, engine="pyarrow", index=False)
    folder.write(_key(dataset), body.getvalue())


def measured(folder: Target) -> set[int]:
    """The datasets that have a part."""
    names = (key.rpartition("/")[2].removesuffix(".parquet") for key in folder.list_keys(FOLDER))
    return {int(name) for name in names if name.isdecimal()}


def join_parts(folder: Target, datasets: Iterable[int]) -> str | None:
    """Write the parts of datasets as one table, ``measure.parquet``; some of them are in memory at a time.

    Returns
    -------
    str or None
        Its location; None if there are no parts, and no table is written.

    Raises
    ------
    InputError
        If a part is damaged.
    """
    groups = _row_groups(folder, datasets)
    first = next(groups, None)
    if first is None:
        folder.remove(TABLE)
        return None
    folder.write_parts(TABLE, chain((first,), groups))
    return f"{folder.url}/{TABLE}"


def _row_groups(folder: Target, datasets: Iterable[int]) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out, writer, schema, left = _Drained(), None, None, iter(datasets)
    while some := list(islice(left, _AT_ONCE)):
        bodies = folder.read_each([_key(id) for id in some], _LARGEST_PART)
        parts = []
        for key, body in bodies.items():
            if body is not None:
                parts.append(_part(folder, key, body, schema))
                schema = schema or parts[0].schema
        if not parts:
            continue
        if writer is None:
            writer = pq.ParquetWriter(pa.PythonFile(out, mode="w"), schema, compression="zstd")
        writer.write_table(pa.concat_tables(parts), row_group_size=2**20)
        yield out.drain()
    if writer is not None:
        writer.close()
        yield out.drain()


def _part(folder: Target, key: str, body: bytes, schema: pa.Schema | None) -> pa.Table:
    """A part as a table, with the columns of the other parts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(body))
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(group).total_byte_size for group in groups) > _LARGEST_TABLE:
            raise ValueError("it is too large")
        table = file.read().replace_schema_metadata(None)
        return table if schema is None else table.cast(schema)
    except (pa.ArrowException, OSError, ValueError, TypeError):
        raise InputError(
            f"{folder.url}/{key} is damaged, or has other columns than the other parts; remove it, then run the same "
            "command to measure the volume again",
            code="damaged-measures",
        ) from None


def _key(dataset: int) -> str:
    return f"{FOLDER}/{dataset}.parquet"


class _Drained(io.RawIOBase):
    """A file whose bytes are taken away while it is written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, body: Any) -> int:
        """Keep bytes until they are drained."""
        self._parts.append(bytes(body))
        self._size += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        """The number of bytes written."""
        return self._size

    def drain(self) -> bytes:
        """The bytes since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
