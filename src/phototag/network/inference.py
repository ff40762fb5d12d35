"""Logits of photos from a trained network."""

import numpy as np
import torch
from torch import nn

from phototag.dataset.dataset import Dataset, read_batch
from phototag.network import distributed

EVAL_BATCH = 256  # photos: forward only, so memory allows more than in training


def pick_device() -> torch.device:
    """Return the first CUDA device, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@torch.inference_mode()
def predict_logits(model: nn.Module, dataset: Dataset, device: torch.device) -> np.ndarray:
    """Compute logits in float32, so that every reader of the model gets the same scores.

    Returns:
        float32 [num_photos, num_labels].
    """
    model.eval()
    positions = distributed.own_share(np.arange(len(dataset)))
    parts = [torch.zeros(0, dataset.targets.shape[1], device=device)]
    for start in range(0, len(positions), EVAL_BATCH):
        images, _ = read_batch(dataset, positions[start : start + EVAL_BATCH], device)
        parts.append(model(images))
    return distributed.gather_rows(torch.cat(parts).cpu().numpy())
