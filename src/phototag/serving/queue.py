"""What many threads ask of one network at once, answered in batches."""

import threading
from collections import deque
from concurrent.futures import Future

import torch
from torch import Tensor, nn

from phototag.serving.tagger import BATCH


class Joined(nn.Module):
    """A network that runs once at a time, and then for all who wait.

    Whoever asks while it is idle is answered at once, in its own thread. What is asked while a
    batch runs waits for its end; one of those who waited then runs the next batch for all of them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.questions: deque[tuple[Tensor, Future[Tensor]]] = deque()
        self.running = False
        self.change = threading.Condition()

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 [batch, 3, size, size] to logits [batch, num_labels], as the network does."""
        answer: Future[Tensor] = Future()
        with self.change:
            self.questions.append((images, answer))
        while not answer.done():
            with self.change:
                self.change.wait_for(lambda: answer.done() or not self.running)
                if answer.done():
                    break
                joined = self._take()
                self.running = True
            try:
                self._answer(joined)
            finally:
                with self.change:
                    self.running = False
                    self.change.notify_all()
        return answer.result()

    def _take(self) -> list[tuple[Tensor, Future[Tensor]]]:
        joined = [self.questions.popleft()]
        while self.questions and sum(len(images) for images, _ in joined) < BATCH:
            joined.append(self.questions.popleft())
        return joined

    def _answer(self, joined: list[tuple[Tensor, Future[Tensor]]]) -> None:
        try:
            asked = [images for images, _ in joined]
            logits = self.network(asked[0] if len(asked) == 1 else torch.cat(asked))
        except Exception as error:  # all of them must hear of it
            for _, answer in joined:
                answer.set_exception(error)
            return
        parts = logits.split([len(images) for images, _ in joined])
        for (_, answer), part in zip(joined, parts, strict=True):
            answer.set_result(part)
