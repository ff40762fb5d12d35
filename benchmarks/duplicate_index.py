"""Time the search for near duplicates among 20 thousand, 100 thousand and 1 million hashes.

Run `python -m benchmarks.duplicate_index`. The hashes are random, except that one in a hundred is
a copy of another hash with up to 8 bits flipped. The benchmark fails if the search misses a copy.
"""

import resource
import time

import numpy as np

from phototag.verification.duplicates import group_hashes

BITS = 8


def main() -> None:
    """Print time and peak memory of the search for each number of hashes."""
    rng = np.random.default_rng(0)
    for count in (20_000, 100_000, 1_000_000):
        hashes = rng.integers(0, 2**63, count, dtype=np.uint64)
        copies = count // 100
        flips = np.zeros(copies, np.uint64)
        for _ in range(BITS):
            flips |= np.uint64(1) << rng.integers(0, 63, copies).astype(np.uint64)
        hashes[:copies] = hashes[copies : 2 * copies] ^ flips
        start = time.perf_counter()
        group = group_hashes(np.unique(hashes), BITS, lambda pairs: np.ones(len(pairs), bool))
        seconds = time.perf_counter() - start
        group = group[np.searchsorted(np.unique(hashes), hashes)]
        missed = int((group[:copies] != group[copies : 2 * copies]).sum())
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{count:>9,} hashes: {seconds:6.2f} s, peak memory {memory:.2f} GiB, "
            f"{len(np.unique(group))} groups, {missed} of {copies} copies missed"
        )
        assert missed == 0


if __name__ == "__main__":
    main()
