"""Settings of the memory allocator on the CPU."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory for later tensors instead of returning it to the kernel.

    By default glibc returns large blocks at once, so each training step requests the same hundreds
    of megabytes again and the kernel zeroes them: a fifth of the step's time. Peak memory does not
    change. On systems without glibc this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
