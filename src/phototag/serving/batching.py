"""Micro-batching: requests of several threads that wait at the same time share one batch."""

import threading
from collections import deque
from concurrent.futures import Future

import torch
from torch import Tensor, nn

from phototag.serving.tagger import BATCH


class MicroBatcher(nn.Module):
    """A network that runs one batch at a time, for all threads that wait.

    A call to an idle network runs at once in the calling thread. Calls made while a batch runs wait
    for its end. Then one of the waiting threads runs the next batch for all of them.

    Args:
        network: Network that maps uint8 [batch, 3, size, size] to logits [batch, num_labels].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.pending: deque[tuple[Tensor, Future[Tensor]]] = deque()
        self.running = False
        self.change = threading.Condition()

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 [batch, 3, size, size] to logits [batch, num_labels]."""
        result: Future[Tensor] = Future()
        with self.change:
            self.pending.append((images, result))
        while not result.done():
            with self.change:
                self.change.wait_for(lambda: result.done() or not self.running)
                if result.done():
                    break
                batch = self._take_batch()
                self.running = True
            try:
                self._run(batch)
            finally:
                with self.change:
                    self.running = False
                    self.change.notify_all()
        return result.result()

    def _take_batch(self) -> list[tuple[Tensor, Future[Tensor]]]:
        batch = [self.pending.popleft()]
        while self.pending and sum(len(images) for images, _ in batch) < BATCH:
            batch.append(self.pending.popleft())
        return batch

    def _run(self, batch: list[tuple[Tensor, Future[Tensor]]]) -> None:
        try:
            parts = [images for images, _ in batch]
            logits = self.network(parts[0] if len(parts) == 1 else torch.cat(parts))
        except Exception as error:  # raised in the thread of every request
            for _, result in batch:
                result.set_exception(error)
            return
        for (_, result), part in zip(batch, logits.split([len(p) for p in parts]), strict=True):
            result.set_result(part)
