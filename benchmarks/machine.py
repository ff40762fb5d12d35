"""Name of the hardware that a benchmark runs on."""

import psutil
import torch


def name_processor() -> str:
    """Return the name of the GPU, or the number of CPU cores if there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{psutil.cpu_count(logical=False) or psutil.cpu_count()} CPU cores"
