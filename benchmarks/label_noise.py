"""Count likely label errors and near duplicates in test, and compute scores without them.

`python -m benchmarks.label_noise PHOTOS/VARIANT...` reads the experiments PHOTOS-report-sN and
PHOTOS-VARIANT-sN; run them with `python -m benchmarks.claims run beaten --photos PHOTOS.zip`. The
label errors found by each network are removed when the other network is scored, because a network
would always gain if its own errors were removed. In each group of near duplicates, only the first
photo is kept. The results replace the rows of these photos and variants in
docs/research/results/label_noise.csv.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.api import DVCFileSystem

from benchmarks.claims.claims import REFERENCE, read_experiments
from benchmarks.claims.collection import RESULTS, list_finished, merge_table
from phototag.experiments.dvc_tools import list_experiments
from phototag.metrics.classification import f1_score


def read_tables(root: Path, revision: str) -> tuple[pd.DataFrame, pd.DataFrame, set[str]]:
    """Return an experiment's decisions on test, its likely label errors on test, and duplicates.

    The duplicates are the files in all splits that have an earlier near duplicate. All photos of
    a group of near duplicates are in the same split.
    """
    files = DVCFileSystem(str(root), rev=revision)

    def read(path: str) -> pd.DataFrame:
        with files.open(path) as file:
            return pd.read_csv(file, keep_default_na=False)

    predictions = read("reports/evaluate/predictions.csv").query("split == 'test'")
    errors = read("reports/evaluate/label_errors.csv").query("split == 'test'")
    manifest = read("data/manifest.csv")
    grouped = manifest.query("duplicate_group != ''")
    return predictions, errors, set(grouped.loc[grouped.duplicated("duplicate_group"), "file"])


def score(decisions: pd.DataFrame) -> dict[str, float]:
    """Compute micro and macro F1 from a table of decisions."""
    labels = [
        f1_score(own["target"].to_numpy(), own["predicted"].to_numpy(), "micro")
        for _, own in decisions.groupby("label")
    ]
    micro = f1_score(decisions["target"].to_numpy(), decisions["predicted"].to_numpy(), "micro")
    return {"f1_micro": micro, "f1_macro": sum(labels) / len(labels)}


def compare_scores(
    decisions: pd.DataFrame, errors: pd.DataFrame, duplicates: set[str]
) -> dict[str, Any]:
    """Score all decisions, and the decisions without likely label errors and duplicates.

    Args:
        decisions: Table with the columns `image`, `label`, `target` and `predicted`.
        errors: Table of likely label errors with the columns `image` and `label`.
        duplicates: Files in all splits that have an earlier near duplicate.
    """
    keys = pd.MultiIndex.from_frame(decisions[["image", "label"]])
    wrong = keys.isin(pd.MultiIndex.from_frame(errors[["image", "label"]]))
    twice = decisions["image"].isin(duplicates).to_numpy()
    scores = {"all": score(decisions), "clean": score(decisions[~(wrong | twice)])}
    return {
        "photos_on_test": decisions["image"].nunique(),
        "decisions": len(decisions),
        "label_errors": int(wrong.sum()),
        "missing_labels": int((wrong & (decisions["target"] == 0)).sum()),
        "duplicates_in_all": len(duplicates),
        "duplicates_on_test": decisions.loc[twice, "image"].nunique(),
        **{f"{k}_{which}": round(v, 4) for which, s in scores.items() for k, v in s.items()},
    }


def judge(root: Path, photos: str, variant: str) -> Iterator[dict[str, Any]]:
    """Yield a row per network, for each seed with experiments of both networks."""
    revisions = dict(list_experiments(root))
    names = {
        (run.variant, run.seed): run.name
        for run in list_finished(root, read_experiments())
        if run.photos == photos
    }
    for seed in sorted(seed for each, seed in names if each == variant):
        if (REFERENCE, seed) not in names:
            continue
        tables = {
            each: read_tables(root, revisions[names[each, seed]]) for each in (REFERENCE, variant)
        }
        for judged, other in ((REFERENCE, variant), (variant, REFERENCE)):
            decisions, _, duplicates = tables[judged]
            row = {"photos": photos, "variant": judged, "judge": other, "seed": seed}
            yield row | compare_scores(decisions, tables[other][1], duplicates)


def main() -> None:
    """Print the table and write it to docs/research/results/."""
    pairs = [argument.split("/") for argument in sys.argv[1:]]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        sys.exit("usage: python -m benchmarks.label_noise PHOTOS/VARIANT...")
    rows = []
    for photos, variant in pairs:
        found = list(judge(Path.cwd(), photos, variant))
        if not found:
            sys.exit(
                f"{photos}: DVC has no seed with experiments of {REFERENCE} and {variant}: run "
                f"`python -m benchmarks.claims run beaten --photos {photos}.zip`"
            )
        rows += found
    merge_table(
        RESULTS / "label_noise.csv", pd.DataFrame(rows), ["photos", "variant", "judge", "seed"]
    )
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
