"""Unstructured pruning: the weights of least magnitude become zeros."""

import numpy as np
import torch
from transformers import PreTrainedModel

from stages.modeling.zeros import prunable_weights


@torch.no_grad()
def prune_magnitude(model: PreTrainedModel, amount: float) -> None:
    """Set the round(amount * count) weights of least magnitude of all Linear layers together to zero, in place.

    One global threshold (Han et al. 2015) over encoder and MLM transform; the vocabulary projection, tied to the
    embedding, is left out. Of equal magnitudes the first in the order of the layers go. Weights that are zero already
    count among those of least magnitude; the model ends sparser than asked only if it already was.
    """
    weights = list(prunable_weights(model).values())
    magnitudes = np.concatenate([weight.abs().flatten().numpy() for weight in weights])
    wanted = round(amount * len(magnitudes))
    if wanted == 0:
        return
    magnitudes.partition(wanted - 1)  # in place, since at the published size another copy is 170 MB
    threshold = float(magnitudes[wanted - 1])
    at_threshold = wanted - int((magnitudes[:wanted] < threshold).sum())
    for weight in weights:
        equal = (weight.abs() == threshold).flatten().nonzero().flatten()[:at_threshold]
        weight[weight.abs() < threshold] = 0.0
        weight.view(-1)[equal] = 0.0
        at_threshold -= len(equal)
