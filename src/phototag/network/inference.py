"""Functions that predict the logits of the photos in a split."""

import numpy as np
import torch
from torch import nn

from phototag.dataset.dataset import Dataset, read_batch
from phototag.network import distributed

EVAL_BATCH = 256  # number of photos; inference needs less memory per photo than training


def pick_device() -> torch.device:
    """Return the first CUDA device, or the CPU if there is no CUDA device."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@torch.inference_mode()
def predict_logits(model: nn.Module, dataset: Dataset, device: torch.device) -> np.ndarray:
    """Predict the logits of all photos of a split, float32 [num_photos, num_labels].

    If `model` is a part of a network, its output can have another width.

    The network is switched to evaluation mode and computes in float32, even if it was trained in
    bfloat16. If there are several processes, they share the photos, and each process returns the
    logits of all photos.
    """
    model.eval()
    positions = distributed.local_share(np.arange(len(dataset)))
    parts = []
    for start in range(0, len(positions), EVAL_BATCH):
        images, _ = read_batch(dataset, positions[start : start + EVAL_BATCH], device)
        parts.append(model(images))
    parts = parts or [torch.zeros(0, dataset.targets.shape[1])]
    return distributed.gather_rows(torch.cat(parts).cpu().numpy())
