"""Compare training in float32 with training in bfloat16 over several seeds.

Run `python -m benchmarks.precision [DATA] [SEED ...]`. DATA is a folder with the outputs of the
stages resize, split and normalize-stats (default: data). Only the precision of the training
differs; val loss and F1 are always computed in float32.
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from phototag.base.files import read_json
from phototag.dataset.dataset import read_datasets
from phototag.metrics.selection import best_record
from phototag.network.model import build_model, initialize
from phototag.schema.params import Params, read_all_params
from phototag.training import loop

FIGURES = ("val_loss", "f1_micro", "f1_macro")


def train(params: Params, data: Path) -> dict[str, float]:
    """Train like the train stage, and return the metrics of the best epoch."""
    files = [data / name for name in ("images.npy", "manifest.csv", "splits.csv")]
    datasets = read_datasets(*files)
    stats = read_json(data / "stats.json")
    torch.manual_seed(params.seed)
    labels = len(datasets["train"].labels)
    model = build_model(params.model, labels, params.resize.size, stats["mean"], stats["std"])
    prior = torch.from_numpy(datasets["train"].targets).float().mean(dim=0)
    initialize(model, params.model, prior)
    epochs = list(loop.fit(model, datasets["train"], datasets["val"], params))
    best = best_record(epochs)
    return {name: best[name] for name in FIGURES}


def main() -> None:
    """Print the metrics of each run, and their means, differences and standard deviations."""
    data = Path(sys.argv[1]) if sys.argv[1:] else Path("data")
    seeds = [int(seed) for seed in sys.argv[2:]] or [0, 1, 2]
    params = read_all_params()
    rows = []
    for seed in seeds:
        for precision in ("fp32", "bf16"):
            changed = params.model_copy(update={"seed": seed, "precision": precision})
            rows.append({"seed": seed, "precision": precision, **train(changed, data)})
            print(pd.DataFrame(rows[-1:]).to_string(header=len(rows) == 1, index=False), flush=True)
    table = pd.DataFrame(rows).pivot(index="seed", columns="precision", values=list(FIGURES))
    for name in FIGURES:
        fp32, bf16 = table[name]["fp32"], table[name]["bf16"]
        difference = (bf16 - fp32).mean()
        print(
            f"{name}: fp32 {fp32.mean():.4f}, bf16 {bf16.mean():.4f}; mean difference "
            f"{difference:+.4f}; standard deviation over the seeds {fp32.std():.4f} in fp32, "
            f"{bf16.std():.4f} in bf16"
        )


if __name__ == "__main__":
    main()
