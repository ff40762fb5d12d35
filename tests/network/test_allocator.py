import platform
import subprocess
import sys

import pytest

# Prints the fewest page faults that one of many tensors cost.
SCRIPT = """
import resource, sys
import torch
from phototag.network.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = []
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(50_000_000, dtype=torch.uint8)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")
def test_memory_is_not_faulted_in_again() -> None:
    faults = [
        int(subprocess.check_output([sys.executable, "-c", SCRIPT, how])) for how in ("", "keep")
    ]
    assert faults[1] < 0.5 * faults[0]
