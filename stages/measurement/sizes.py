"""Sizes of weight files, as they are and as a download compresses them."""

from pathlib import Path

from isal import isal_zlib

MIB = 2**20
CHUNK = 4 * MIB


def megabytes(path: Path) -> float:
    """Size of a file in MiB."""
    return path.stat().st_size / MIB


def compressed_megabytes(path: Path) -> float:
    """Size in MiB that a file has after DEFLATE, without ever holding it in memory.

    By ISA-L, in a fifteenth of the time of zlib's default level, which application packages and `gzip` use: 0.4 % off
    for fp32, pruned and INT8 weights of the default profile. Between processors its sizes may differ a little.
    """
    compressor, total = isal_zlib.compressobj(isal_zlib.ISAL_DEFAULT_COMPRESSION), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            total += len(compressor.compress(chunk))
    return (total + len(compressor.flush())) / MIB
