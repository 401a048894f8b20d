"""Parquet files with a flipped byte."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_damaged(path: Path, columns: dict[str, list[Any]], compression: str = "snappy") -> None:
    """Write columns and flip the first byte of their pages that makes Arrow raise an OSError when it reads them."""
    pq.write_table(pa.table(columns), path, compression=compression)
    whole = path.read_bytes()
    for place in range(4, len(whole)):  # after the magic number
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            pq.read_table(path)
        except pa.ArrowInvalid:
            continue
        except OSError:
            return
    raise AssertionError("no byte matters")
