"""A project with packed photos in which some labels are wrong or unknown."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.files import write_json
from phototag.dataset.manifest import label_targets, read_kept
from phototag.dataset.targets import UNKNOWN
from phototag.verification.corrections import COLUMNS
from phototag.verification.ledger import write_manifest
from tests.conftest import SHIPPED_PARAMS
from tests.models import LABELS, make_model

# Row and label of entries that are flipped or unknown; the model predicts the true value.
WRONG = [(row, LABELS[row // 3 % 3]) for row in range(0, 40, 3)]
DOUBTFUL = [(row, label) for row in (1, 4, 7) for label in LABELS]
COPIES = (10, 11)  # duplicates whose label green differs


def make_review(folder: Path, packed: Path) -> Path:
    """Write the project.

    Args:
        folder: New folder.
        packed: Folder of the fixture `packed`, whose labels are correct.
    """
    shutil.copytree(packed, folder / "data")
    params = SHIPPED_PARAMS.read_text().replace("raw: data/sample", "raw: data/raw.zip")
    (folder / "params.yaml").write_text(params)
    manifest = read_kept(packed / "manifest.csv")
    targets = label_targets(manifest)
    for row, label in WRONG:
        targets[row, LABELS.index(label)] ^= 1
    for row, label in DOUBTFUL:
        targets[row, LABELS.index(label)] = UNKNOWN
    targets[COPIES[1], LABELS.index("green")] = 1 - targets[COPIES[0], LABELS.index("green")]
    manifest[LABELS] = targets
    manifest.loc[list(COPIES), "duplicate_group"] = "aa"
    write_manifest(folder / "data/manifest.csv", manifest)
    (folder / "data/corrections.csv").write_text(",".join(COLUMNS) + "\n")
    np.save(folder / "data/features.npy", np.zeros((0, 0), np.float32))
    model, thresholds = make_model(folder / "models")
    np.save(model.with_name("out_of_fold.npy"), np.zeros((0, 0, 0), np.float32))
    (folder / "reports/evaluate").mkdir(parents=True)
    thresholds.rename(folder / "reports/evaluate" / thresholds.name)
    write_json(folder / "reports/resize/summary.json", {"renamed_labels": {}})
    return folder


def read_rows(project: Path) -> list[list[str]]:
    """Read the corrections: file, label, answer, old, who, ranking."""
    table = pd.read_csv(project / "data/corrections.csv", dtype=str, keep_default_na=False)
    rows: list[list[str]] = (
        table[["file", "label", "answer", "old", "who", "ranking"]].to_numpy().tolist()
    )
    return rows
