import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from phototag.serving.queue import Joined
from phototag.serving.tagger import BATCH


class Sums(nn.Module):
    """The sum of each image; its first batch waits until it is let go, a 9 is refused."""

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


def ask(joined: Joined, network: Sums, first: Tensor, *rest: Tensor) -> list[Future[Tensor]]:
    """Ask all while the first is being answered, and wait until they wait."""
    with ThreadPoolExecutor(1 + len(rest)) as threads:
        asked = [threads.submit(joined, first)]
        assert network.started.wait(60)
        asked += [threads.submit(joined, images) for images in rest]
        while len(joined.questions) < len(rest):
            pass
        network.go.set()
    return asked


def images_of(*values: int) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 2, 2)


def test_what_waits_is_answered_as_one_batch_each_with_its_own() -> None:
    network = Sums()
    values = [(1,), (2, 3), (4,), (5, 6, 7)]
    asked = ask(Joined(network), network, *(images_of(*some) for some in values))
    assert network.batches == [1, 6]
    for some, answer in zip(values, asked, strict=True):
        assert answer.result().flatten().tolist() == [12 * value for value in some]


def test_a_batch_has_an_end() -> None:
    network = Sums()
    many = images_of(*range(10, 10 + BATCH - 1))
    asked = ask(Joined(network), network, images_of(1), many, many, many)
    assert network.batches == [1, 2 * (BATCH - 1), BATCH - 1]
    assert [len(answer.result()) for answer in asked] == [1, *[BATCH - 1] * 3]


def test_an_error_is_told_to_all_who_were_joined_and_to_no_other() -> None:
    network = Sums()
    joined = Joined(network)
    first, *rest = ask(joined, network, images_of(1), images_of(9), images_of(2))
    assert first.result().item() == 12
    for answer in rest:
        with pytest.raises(ValueError, match="a nine"):
            answer.result()
    assert joined(images_of(3)).item() == 36
    assert network.batches == [1, 2, 1]
