"""Sizes of weight files, as they are and as a download compresses them."""

import zlib
from pathlib import Path

MIB = 2**20
CHUNK = 4 * MIB
LEVEL = 6  # zlib's default, which application packages and `gzip` use


def megabytes(path: Path) -> float:
    """Size of a file in MiB."""
    return path.stat().st_size / MIB


def compressed_megabytes(path: Path) -> float:
    """Size in MiB that a file has after DEFLATE, without ever holding it in memory."""
    compressor, total = zlib.compressobj(LEVEL), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            total += len(compressor.compress(chunk))
    return (total + len(compressor.flush())) / MIB
