"""The networks that compression makes; importing the package teaches `transformers` to load them."""

from stages.modeling import quantizer, shrunken

__all__ = ["quantizer", "shrunken"]
