"""Pruning and INT8; importing the package teaches `transformers` to load what they write."""

from stages.compression import quantizer, shrunken

__all__ = ["quantizer", "shrunken"]
