"""Micro-batching: requests from several threads that wait at the same time share one batch."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn

from phototag.serving.tagger import BATCH


class MicroBatcher(nn.Module):
    """Network that runs in a separate thread, one batch at a time.

    Calls that arrive during a batch wait until the batch has finished. They share the next batch.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.pending: deque[tuple[Tensor, Future[Tensor]]] = deque()
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="network")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [batch, num_labels] of uint8 images [batch, 3, size, size]."""
        result: Future[Tensor] = Future()
        self.pending.append((images, result))
        self.worker.submit(self._run_pending)
        return result.result()

    def _run_pending(self) -> None:
        """Run a batch of pending calls. Do nothing if no call is pending any more."""
        parts: list[Tensor] = []
        results: list[Future[Tensor]] = []
        while self.pending and sum(map(len, parts)) < BATCH:
            images, result = self.pending.popleft()
            parts.append(images)
            results.append(result)
        if not parts:
            return
        try:
            with torch.inference_mode():
                logits = self.network(torch.cat(parts)).split(list(map(len, parts)))
        except Exception as error:  # `Future.result` raises it again in each waiting thread
            for result in results:
                result.set_exception(error)
        else:
            for result, own in zip(results, logits, strict=True):
                result.set_result(own)
