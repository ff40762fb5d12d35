"""How the process gets its memory on the CPU."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next tensor of that size.

    By default it returns large blocks to the kernel at once: every step of a training then faults
    in, and zeroes, the same hundreds of megabytes again, which took a fifth of its time. The peak
    stays what it was. Elsewhere than on Linux with glibc, nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
