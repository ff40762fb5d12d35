"""Training of the report's network, as a user of Lightning would write it."""

from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from lightning.pytorch.callbacks import LambdaCallback
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import MultilabelF1Score
from torchvision import transforms

from benchmarks.alternatives.network import build_network


class Photos(Dataset[tuple[Tensor, Tensor]]):
    """A dataset of JPEG files and their targets."""

    def __init__(self, files: pd.Series, targets: pd.DataFrame, photos: Path) -> None:
        self.files = [photos / file for file in files]
        self.targets = torch.tensor(targets.to_numpy()).float()
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        self.transform = transforms.Compose(
            [
                transforms.Resize(128),
                transforms.CenterCrop(128),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.files[index]).convert("RGB")), self.targets[index]


class Tagger(lightning.LightningModule):  # type: ignore[misc]
    """The network, its loss and its optimizer."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.network = build_network(num_labels)
        self.loss = nn.BCEWithLogitsLoss()
        self.f1 = MultilabelF1Score(num_labels, average="micro")
        self.losses: list[Tensor] = []
        self.history: list[list[float]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss: Tensor = self.loss(self.network(batch[0]), batch[1])
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        logits = self.network(batch[0])
        self.losses.append(self.loss(logits, batch[1]) * len(logits))
        self.f1.update(logits.sigmoid(), batch[1].int())

    def on_validation_epoch_end(self) -> None:
        loss = sum(self.losses) / len(self.trainer.val_dataloaders.dataset)
        self.history.append([float(loss), float(self.f1.compute())])
        self.losses.clear()
        self.f1.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.0005, weight_decay=0.0002)


def train(table: Path, photos: Path, epochs: int, seed: int, timer: Any) -> list[list[float]]:
    """Train, call `timer` after each epoch, and return val loss and micro F1 of each epoch."""
    lightning.seed_everything(seed)
    frame = pd.read_csv(table, keep_default_na=False)
    targets = frame["labels"].str.get_dummies(";")
    sets = {
        split: Photos(frame.loc[rows, "file"], targets.loc[rows], photos)
        for split, rows in frame.groupby("split").groups.items()
    }
    trainer = lightning.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        callbacks=LambdaCallback(on_validation_epoch_end=timer),
    )
    tagger = Tagger(len(targets.columns))
    trainer.fit(
        tagger,
        DataLoader(sets["train"], 64, shuffle=True, num_workers=2, persistent_workers=True),
        DataLoader(sets["val"], 64, num_workers=2, persistent_workers=True),
    )
    return tagger.history
