"""What the volumes of a batch show in the regions of an annotation: a part for each dataset, joined to one table."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..stores.target import Target

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "measure"
TABLE = "measure.parquet"
#: Parts of one row group: some 40,000 rows of the CCF, 5 MB.
_AT_ONCE = 32
#: The most bytes of a part: a hundred times that of the CCF by hemisphere.
_LARGEST_PART = 2**27


def write_part(folder: Target, dataset: int, gene: str, statistics: pd.DataFrame) -> None:
    """Write the statistics of a dataset, with its id and gene in the first columns."""
    table = statistics.reset_index()
    table.insert(0, "gene", gene)
    table.insert(0, "dataset", dataset)
    table.attrs = {}  # what differs between the parts of one table
    body = io.BytesIO()
    table.to_parquet(body, engine="pyarrow", index=False)
    folder.write(_key(dataset), body.getvalue())


def join_parts(folder: Target, datasets: Iterable[int]) -> str:
    """Write the parts of datasets as one table, ``measure.parquet``; some of them are in memory at a time.

    Returns
    -------
    str
        Its location.
    """
    folder.write_parts(TABLE, _row_groups(folder, datasets))
    return f"{folder.url}/{TABLE}"


def _row_groups(folder: Target, datasets: Iterable[int]) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out, writer, left = _Drained(), None, iter(datasets)
    while some := list(islice(left, _AT_ONCE)):
        bodies = folder.read_each([_key(id) for id in some], _LARGEST_PART).values()
        parts = [pq.read_table(io.BytesIO(body)) for body in bodies if body is not None]
        if not parts:
            continue
        if writer is None:
            schema = parts[0].schema.remove_metadata()
            writer = pq.ParquetWriter(pa.PythonFile(out, mode="w"), schema, compression="zstd")
        writer.write_table(pa.concat_tables([part.cast(schema) for part in parts]), row_group_size=2**20)
        yield out.drain()
    if writer is not None:
        writer.close()
        yield out.drain()


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
