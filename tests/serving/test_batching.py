import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from phototag.serving.batching import MicroBatcher
from phototag.serving.tagger import BATCH


class Sums(nn.Module):
    """Sum of each image; the first batch waits for `go`, and an image of 9 raises an error."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.go = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        self.started.set()
        assert self.go.wait(60)
        if (images == 9).any():
            raise ValueError("a nine")
        return images.flatten(1).sum(1, keepdim=True)


def submit(
    batcher: MicroBatcher, network: Sums, first: Tensor, *rest: Tensor
) -> list[Future[Tensor]]:
    """Submit all but the first while the first runs, and start them when all are pending."""
    with ThreadPoolExecutor(1 + len(rest)) as threads:
        asked = [threads.submit(batcher, first)]
        assert network.started.wait(60)
        asked += [threads.submit(batcher, images) for images in rest]
        while len(batcher.pending) < len(rest):
            pass
        network.go.set()
    return asked


def images_of(*values: int) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 2, 2)


def test_pending_calls_share_a_batch_and_get_their_own_rows() -> None:
    network = Sums()
    values = [(1,), (2, 3), (4,), (5, 6, 7)]
    asked = submit(MicroBatcher(network), network, *(images_of(*some) for some in values))
    assert network.batches == [1, 6]
    for some, answer in zip(values, asked, strict=True):
        assert answer.result().flatten().tolist() == [12 * value for value in some]


def test_batch_size_is_limited() -> None:
    network = Sums()
    many = images_of(*range(10, 10 + BATCH - 1))
    asked = submit(MicroBatcher(network), network, images_of(1), many, many, many)
    assert network.batches == [1, 2 * (BATCH - 1), BATCH - 1]
    assert [len(answer.result()) for answer in asked] == [1, *[BATCH - 1] * 3]


def test_error_is_raised_in_every_call_of_its_batch_only() -> None:
    network = Sums()
    batcher = MicroBatcher(network)
    first, *rest = submit(batcher, network, images_of(1), images_of(9), images_of(2))
    assert first.result().item() == 12
    for answer in rest:
        with pytest.raises(ValueError, match="a nine"):
            answer.result()
    assert batcher(images_of(3)).item() == 36
    assert network.batches == [1, 2, 1]
