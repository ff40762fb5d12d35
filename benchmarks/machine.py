"""What a figure was measured on."""

import psutil
import torch


def name_processor() -> str:
    """Name the GPU, or count the CPU's cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{psutil.cpu_count(logical=False) or psutil.cpu_count()} CPU cores"
