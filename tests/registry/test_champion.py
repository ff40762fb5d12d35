"""Decisions of the champion gate, with versions that have no files.

`test_versions` registers real models, which takes seconds each.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.dataset.dataset import Dataset, join_datasets, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.network.weights import Metadata
from phototag.registry import challenges, comparison, versions
from phototag.registry.comparison import Contestant
from phototag.registry.cross_validated import CrossValidated, load_predictions
from phototag.registry.decision import make_decision
from phototag.registry.photos import list_ids
from phototag.registry.report import write_report
from phototag.tracking.runs import Training, create_run
from phototag.tracking.store import Store, connect
from tests.models import LABELS, make_model


class Registry:
    """Registry of models that know the first labels only; more known labels are better."""

    def __init__(self, store: Store, folder: Path, datasets: dict[str, Dataset]) -> None:
        self.store, self.folder, self.datasets = store, folder, datasets
        self.files: dict[str, tuple[Contestant, Path]] = {}  # model, list of photos
        self.lost: set[str] = set()  # versions whose files were deleted
        self.run_id = ""
        self.comparison: Any = None  # of the last challenge
        self.renamed: dict[str, str] = {}

    def register(
        self,
        name: str,
        known: int,
        code: str = "",
        labels: Sequence[str] = LABELS,
        predictions: CrossValidated | None = None,
        **scores: float,
    ) -> str:
        """Register a model whose thresholds depend on its name, so that digests differ."""
        folder = self.folder / name
        files = make_model(folder, known, labels=labels)
        point = (folder / "thresholds.json").read_text()
        files[1].write_text(point.replace("0.5", f"0.5{sum(map(ord, name))}"))
        thresholds = json.dumps(dict.fromkeys(labels, 0.5))
        tags = {"model_digest": f"{name}{code}", "thresholds": thresholds}
        tags |= {f"{split}_photos": str(len(own)) for split, own in self.datasets.items()}
        tags |= {score: str(value) for score, value in scores.items()}
        ids = list_ids(self.datasets)
        model = Contestant(files, predictions)
        version = versions.register_model(self.store, self.run_id, model, ids, tags, "")
        stored = load_predictions(folder / "cross_validation.npz")
        self.files[version] = Contestant(files, stored), folder / "photos.txt"
        return version

    def challenge(self, name: str, known: int, **more: Any) -> Any:
        version = self.register(name, known, **more)
        decision, self.comparison = challenges.challenge_champion(
            self.store,
            version,
            self.files[version][0],
            self.datasets,
            resamples=100,
            seed=0,
            renamed=self.renamed,
        )
        return decision

    def page(self, decision: dict[str, Any]) -> str:
        write_report(self.folder / "report", self.store, decision, self.comparison, self.renamed)
        return (self.folder / "report/report.html").read_text()

    def champion(self) -> int | None:
        return versions.find_champion(self.store)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An MLflow store, which takes seconds to create."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("store") / "phototag"
        root.mkdir()
        patch.setenv("DVC_ROOT", str(root))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        yield connect()


@pytest.fixture
def registry(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: dict[str, Dataset]
) -> Iterator[Registry]:
    # Train has more photos than test, so it is used for the comparisons.
    swapped = datasets | {"train": datasets["test"], "test": datasets["train"]}
    made = Registry(store, tmp_path, swapped)
    client = made.store.client
    client.create_registered_model("phototag")

    def log_model(
        model: Path, thresholds: Path, name: str, extra: dict[str, Path]
    ) -> SimpleNamespace:
        for file in extra.values():
            shutil.copy(file, model.parent)
        version = client.create_model_version(name, str(model.parent), made.run_id or None)
        return SimpleNamespace(registered_model_version=version.version)

    def has_files(_: Store, version: str) -> bool:
        existing = client.search_model_versions("name = 'phototag'")
        return version in {str(each.version) for each in existing} - made.lost

    class NoRun:
        def __init__(self, **_: str) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(versions, "log_model", log_model)
    monkeypatch.setattr(mlflow, "start_run", NoRun)
    monkeypatch.setattr(challenges, "fetch_files", lambda _, version, folder: made.files[version])
    for module in (challenges, versions):
        monkeypatch.setattr(module, "has_files", has_files)
    yield made
    client.delete_registered_model("phototag")


def test_each_model_counts_once_per_champion_and_photos(registry: Registry) -> None:
    assert registry.challenge("first", 2)["reason"] == "there was no champion"
    numbers = [registry.challenge(name, 1)["challenge"] for name in ("a", "b", "a", "c", "b")]
    assert numbers == [1, 2, 1, 3, 2]
    # Other code does not make another model.
    assert registry.challenge("a", 1, code="fixed")["challenge"] == 1
    # The number of a deleted version is not given again.
    registry.store.client.delete_model_version("phototag", "2")
    assert registry.challenge("d", 1)["challenge"] == 4
    assert registry.challenge("c", 1)["coverage"] == comparison.coverage(3)
    # A comparison on other photos is another challenge, also for the same model.
    registry.datasets["test"] = take_photos(registry.datasets["test"], np.arange(20))
    assert registry.challenge("d", 1)["challenge"] == 5
    assert registry.challenge("e", 1)["challenge"] == 6
    assert registry.champion() == 1


def test_projects_on_one_store_have_their_own_champions(registry: Registry) -> None:
    registry.challenge("first", 1)
    other = Store(registry.store.uri, "other", registry.store.lock)
    assert other.experiment_id != registry.store.experiment_id
    assert versions.find_champion(other) is None
    assert versions.read_history(other) == []
    with pytest.raises(InputError, match="no champion to roll back"):
        versions.roll_back(other, "")
    client = other.client
    client.create_registered_model("other")
    for _ in range(2):
        client.create_model_version("other", "source")
    versions.apply_decision(other, make_decision("other", "promote", 2, None, True, "mine"))
    assert (versions.find_champion(other), registry.champion()) == (2, 1)
    assert versions.describe_registry(registry.store)[-1].endswith("models:/phototag@champion")
    assert [decision["name"] for decision in versions.read_history(other)] == ["other"]
    client.delete_registered_model("other")


def test_challenges_of_a_new_champion_start_at_one(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.challenge("a", 0)
    won = registry.challenge("better", 3)
    assert (won["champion"], won["challenge"], won["coverage"]) == (True, 2, "99.1667%")
    assert won["notes"][-1] == "this was challenge 2 of champion version 1"
    assert registry.challenge("a", 0)["challenge"] == 1
    assert registry.challenge("c", 0)["challenge"] == 2


def test_same_weights_with_other_code_replace_the_champion_and_keep_the_count(
    registry: Registry,
) -> None:
    registry.challenge("first", 2)
    registry.challenge("a", 1)
    decision = registry.challenge("first", 2, code="fixed")
    assert decision["champion"]
    assert "same weights and thresholds" in decision["reason"]
    assert registry.champion() == decision["version"] == 3
    assert registry.challenge("b", 1)["challenge"] == 2


def test_champion_that_changed_during_the_comparison_is_compared_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.challenge("first", 1)
    rival = registry.register("rival", 3)
    compare = comparison.compare_models
    moved: list[str] = []

    def compare_while_another_machine_promotes(*given: Any, **more: Any) -> Any:
        if not moved:
            moved.append(rival)
            registry.store.client.set_registered_model_alias("phototag", "champion", rival)
        return compare(*given, **more)

    monkeypatch.setattr(challenges, "compare_models", compare_while_another_machine_promotes)
    decision = registry.challenge("mine", 2)
    assert (decision["champion"], decision["previous_champion"]) == (False, int(rival))
    assert registry.champion() == int(rival)


def test_deleted_versions_are_named_in_the_error(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.challenge("better", 3)
    registry.store.client.delete_model_version("phototag", "1")
    with pytest.raises(InputError, match="version 1 of the model phototag does not exist"):
        versions.roll_back(registry.store, "")
    with pytest.raises(InputError, match="version 1 of the model phototag does not exist"):
        versions.promote(registry.store, "1", "")
    registry.store.client.delete_model_version("phototag", "2")
    assert registry.champion() is None
    with pytest.raises(InputError, match="there is no champion"):
        versions.roll_back(registry.store, "")
    assert registry.challenge("next", 1)["champion"]


def test_history_reports_what_was_deleted_in_mlflow(registry: Registry) -> None:
    def show_history() -> list[str]:
        return CliRunner().invoke(typer_app, ["history"]).stdout.splitlines()

    assert show_history()[0].startswith("no version is registered: run `dvc repro`")
    client = registry.store.client
    for name, known in (("a", 1), ("b", 0), ("c", 3)):
        registry.challenge(name, known)
    assert registry.champion() == 3
    client.delete_model_version("phototag", "2")
    client.delete_registered_model_alias("phototag", "champion")
    assert show_history()[-2] == "deleted in MLflow: version 2"
    assert show_history()[-1].startswith("there is no champion: run")
    client.set_registered_model_alias("phototag", "champion", "1")
    assert show_history()[-1].startswith("the champion is version 1, ")
    versions.promote(registry.store, "1", "first\nsecond")
    assert show_history()[-3].endswith(r"version   1  promote    champion  first\nsecond")
    for version in ("3", "1"):
        client.delete_model_version("phototag", version)
    assert show_history()[0].startswith("no version is registered")


def test_failing_store_is_not_a_missing_champion(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.challenge("first", 3)

    def fail(*_: str) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(registry.store.client, "search_registered_models", fail)
        with pytest.raises(MlflowException, match="connection refused"):
            registry.challenge("worse", 0)
    assert registry.champion() == 1


def test_champion_with_a_damaged_file_stays(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.files["1"][0].files[0].write_bytes(b"cut")
    decision = registry.challenge("better", 3)
    assert not decision["champion"]
    assert "champion version 1 cannot be compared: " in decision["reason"]
    assert decision["notes"] == ["to replace it, run `phototag promote 2`"]


def test_model_selected_on_val_is_not_promoted_by_a_comparison_on_val(registry: Registry) -> None:
    registry.datasets["val"] = registry.datasets["test"]
    registry.datasets["test"] = take_photos(registry.datasets["test"], np.arange(0))
    registry.challenge("first", 1)
    decision = registry.challenge("better", 3)
    assert not decision["champion"]
    assert "the challenger was selected on val" in decision["reason"]
    assert "set split.test above 0, or run `phototag promote 2`" in decision["notes"][-1]
    assert registry.champion() == 1
    assert comparison.judge(registry.comparison.scores)[0]
    page = registry.page(decision)
    assert "at most 2.5%" not in page
    assert "are no evidence that a model is better" in page


def test_page_shows_both_models_side_by_side(registry: Registry) -> None:
    registry.run_id = create_run(registry.store, Training("first", {"lr": 0.1, "epochs": 3}))
    first = registry.page(registry.challenge("first", 1, f1_micro=0.61234567))
    assert "Version 1 became the champion: there was no champion." in first
    assert "<td>f1_micro</td><td>0.6123</td></tr>" in first
    assert "What changed" not in first
    registry.run_id = create_run(registry.store, Training("second", {"lr": 0.2, "epochs": 3}))
    # One photo has a label that the challenger predicts and that is not true.
    test = registry.datasets["test"]
    targets = test.targets.copy()
    photo = np.flatnonzero(targets[:, 1:].all(axis=1))[0]
    targets[photo] = [0, 1, 0]
    targets[3:, 0] = UNKNOWN
    registry.datasets["test"] = replace(test, targets=targets)
    page = registry.page(registry.challenge("better", 3, f1_micro=0.9))
    assert "Version 2 became the champion: micro F1 " in page
    assert "(97.5% interval)" in page
    assert "<td>lr</td><td>0.1</td><td>0.2</td>" in page
    assert "<td>epochs</td>" not in page
    assert "<td>photos in test</td><td>24</td><td>24</td>" in page
    table = pd.read_csv(registry.folder / "report/labels.csv")
    rows = re.findall(r"<tr><td>(\w+)</td><td>(\d+)</td><td>([\d.]+)</td><td>([\d.]+)<", page)
    assert [row[0] for row in rows] == ["green", "red"]
    for (label, positives, old, new), own in zip(rows, table.iloc[1:].itertuples(), strict=True):
        assert (label, int(positives)) == (own.label, own.positives)
        assert (float(old), float(new)) == pytest.approx((own.champion, own.challenger), abs=5e-4)
    assert f"fewer than 5 positives): blue ({table['positives'][0]})." in page
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == 10
    shown = next(each for each in captions if each.startswith(f"{test.files[photo]}<"))
    assert shown.split("<br>")[2:] == [
        "champion 1: none (1 error)",
        "version 2: green, red (1 error)",
    ]
    # The models cannot be compared, so that the page shows the scores at registration.
    registry.datasets["test"] = take_photos(test, np.arange(3))
    page = registry.page(registry.challenge("third", 0, f1_micro=0.5))
    assert "Version 3 did not become the champion: champion version 2 cannot be compared" in page
    assert "<td>f1_micro</td><td>0.9000</td><td>0.5000</td>" in page
    assert "<figure>" not in page


def test_versions_without_files(registry: Registry) -> None:
    registry.challenge("first", 2)
    registry.challenge("a", 1)
    registry.lost.add("2")
    assert registry.challenge("a", 1)["version"] == 3
    with pytest.raises(InputError, match=r"version 2 .* or its files were deleted"):
        versions.promote(registry.store, "2", "")
    registry.lost.add("1")
    # The same model is registered again. A champion without files loses, even if it is better.
    assert registry.challenge("first", 2)["version"] == 4
    registry.lost.add("4")
    decision = registry.challenge("a", 1)
    assert (decision["version"], decision["champion"]) == (3, True)
    assert decision["reason"] == "the files of champion version 4 were deleted"
    with pytest.raises(InputError, match=r"version 4 .* or its files were deleted"):
        versions.roll_back(registry.store, "")


def test_description_escapes_the_origin() -> None:
    metadata = Metadata(
        ["cat"], 16, [], [], {}, "key", epoch=1, val_loss=0.5, num_photos=9, source="my_<photos>"
    )
    scores = pd.DataFrame(columns=["predictor", "metric", "value", "low", "high"])
    photos = Dataset(np.zeros(0), np.arange(9), np.ones((9, 1)), ["cat"], [], [])
    text = versions.write_description(scores, metadata, photos)
    assert "1 labels" in text
    assert "too few" not in text
    assert "<" not in text


@pytest.mark.parametrize("change", ["corrected", "more photos"])
def test_champion_is_scored_again_on_the_current_photos(registry: Registry, change: str) -> None:
    """The champion's F1 is scikit-learn's F1 on the current photos and labels."""
    test = registry.datasets["test"]
    if change == "more photos":
        registry.datasets["test"] = take_photos(test, np.arange(9))
    registry.challenge("first", 1)
    corrected = test.targets.copy()
    corrected[:3] = 1 - corrected[:3]
    registry.datasets["test"] = replace(
        test, targets=corrected if change == "corrected" else test.targets
    )
    decision = registry.challenge("better", 3)
    assert decision["notes"][0] == "24 of 24 test photos were compared"
    scores = registry.comparison.scores.set_index("metric").loc["f1_micro"]
    assert scores["photos"] == 24
    current = registry.datasets["test"].targets
    for model, known in (("champion", 1), ("challenger", 3)):
        predicted = test.targets * (np.arange(3) < known)  # the models predict the first labels
        assert scores[model] == pytest.approx(f1_score(current, predicted, average="micro"))
    assert decision["champion"] == (scores["low"] > 0)


def test_labels_of_both_models_are_compared(registry: Registry) -> None:
    """The label "blue" was removed, and the label "azure" added."""
    registry.challenge("first", 2)
    test = registry.datasets["test"]
    others = ["azure", "green", "red"]
    registry.datasets["test"] = replace(test, labels=others)
    decision = registry.challenge("better", 3, labels=others)
    assert "2 labels were compared (added: azure; removed: blue)" in decision["notes"]
    assert registry.comparison.labels["label"].tolist() == ["green", "red"]
    scores = registry.comparison.scores.set_index("metric").loc["f1_macro"]
    assert scores["challenger"] == 1
    assert scores["champion"] == 0.5
    other = ["a", "b", "c"]
    registry.datasets["test"] = replace(test, labels=other)
    decision = registry.challenge("others", 3, labels=other)
    assert "no label is common to both models" in decision["reason"]
    assert decision["notes"] == ["to replace it, run `phototag promote 3 --new-labels`"]
    assert registry.comparison is None


def test_outputs_for_renamed_labels_are_compared(registry: Registry) -> None:
    """The label "blue" was renamed to "azure", and "pink" to a label that the champion has."""
    registry.challenge("first", 1)
    names = ["azure", "green", "red"]
    test = registry.datasets["test"]
    targets = test.targets.copy()
    targets[:2] = targets[2, 1] = UNKNOWN
    registry.datasets["test"] = replace(test, labels=names, targets=targets)
    registry.renamed = {"blue": "azure", "pink": "green"}
    decision = registry.challenge("better", 3, labels=names)
    assert decision["notes"][:3] == [
        "22 of 24 test photos were compared (65 known entries)",
        "2 of 24 have no known label among those compared",
        "3 labels were compared (renamed: blue to azure)",
    ]
    table = registry.comparison.labels.set_index("label")
    assert table["champion"].to_dict() == {"azure": 1, "green": 0, "red": 0}
    assert decision["champion"]
    assert "<p>Labels renamed: blue to azure.</p>" in registry.page(decision)
    # A client reads the names, so the new version is promoted only if requested.
    versions.roll_back(registry.store, "")
    with pytest.raises(InputError, match="add --new-labels"):
        versions.promote(registry.store, "2", "")


def test_label_is_not_renamed_to_another_label_of_the_model() -> None:
    assert comparison.rename_labels(["a", "b"], {"a": "b"}) == ["a", "b"]


def test_other_labels_are_promoted_only_if_requested(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.register("other", 3, labels=["azure", "green", "red"])
    registry.register("same", 3)
    message = (
        r"version 2 .* the champion, version 1 \(added: azure; removed: blue\): add --new-labels"
    )
    with pytest.raises(InputError, match=message):
        versions.promote(registry.store, "2", "")
    assert registry.champion() == 1
    run = CliRunner().invoke
    assert run(typer_app, ["promote", "2", "--new-labels"]).exit_code == 0
    assert registry.champion() == 2
    # The previous champion is restored without a question.
    assert versions.roll_back(registry.store, "")["version"] == 1
    assert versions.promote(registry.store, "3", "")["champion"]


@pytest.mark.parametrize("kind", ["photos", "groups", "removed"])
def test_photos_on_which_the_champion_was_trained_are_excluded(
    registry: Registry, kind: str
) -> None:
    """Photos of train or val moved to test; only with these, the champion would win.

    `groups`: photos of the same albums are in test, and the albums were renamed. `removed`: the
    photos were removed, and only the names of the albums show which test photos belong to them.
    """
    train, val, test = (registry.datasets[split] for split in ("train", "val", "test"))
    everything = join_datasets([train, val, test])
    albums = [f"{photo % 20:016x}" for photo in range(40)]  # two photos in each album
    everything = replace(everything, groups=albums)
    seen, unseen = np.arange(10), np.arange(10, 20)
    moved = seen if kind == "photos" else seen + 20
    # In the moved photos, the labels agree with the champion, which predicts "blue" only.
    everything.targets[moved, 1:] = 0

    def select(*positions: np.ndarray) -> Dataset:
        return take_photos(everything, np.concatenate(positions))

    registry.datasets = {"train": select(seen), "val": select(unseen + 20), "test": select(unseen)}
    registry.datasets["val"] = take_photos(registry.datasets["val"], np.arange(0))
    registry.challenge("champion", 1)
    rest = np.arange(0)
    if kind == "groups":
        rest = seen
        everything = replace(everything, groups=[f"new {album}" for album in albums])
    registry.datasets |= {"train": select(rest), "test": select(moved, unseen)}
    decision = registry.challenge("better", 3)
    assert decision["champion"], decision["reason"]
    assert decision["notes"][:2] == [
        "10 of 20 test photos were compared",
        "10 of 20 were excluded: champion version 1 was trained or selected on them, or on photos "
        "of their groups",
    ]
    assert registry.comparison.photos.files == select(unseen).files
    files = registry.files["2"][0], registry.files["1"][0]
    with_seen = comparison.compare_models(registry.datasets["test"], *files, resamples=100, seed=0)
    assert not comparison.judge(with_seen.scores)[0]


@pytest.mark.parametrize(
    ("champion_has", "challenger_has", "size"),
    [("test", "predictions", 8), ("predictions", "test", 8), ("predictions", "predictions", 40)],
)
def test_photos_with_cross_validated_predictions_are_compared(
    registry: Registry, champion_has: str, challenger_has: str, size: int
) -> None:
    """Both models know all labels, and their cross-validated predictions are worse than they are.

    A model without a test split has predictions for 40 photos.
    """
    everything = join_datasets([registry.datasets[split] for split in ("test", "val", "train")])
    parts = [take_photos(everything, np.arange(*ends)) for ends in ((0, 26), (26, 32), (32, 40))]
    splits = dict(zip(("train", "val", "test"), parts, strict=True))
    whole = splits | {
        "val": join_datasets(parts[1:]),
        "test": take_photos(everything, np.arange(0)),
    }
    # The champion's predictions miss one label, and those of the challenger half of the photos.
    missing: dict[str, Any] = {
        "champion": (slice(None), 0),
        "better": (slice(0, None, 2), slice(None)),
    }
    expected = {}
    for name, has in (("champion", champion_has), ("better", challenger_has)):
        registry.datasets = splits if has == "test" else whole
        predicted, predictions = everything.targets > 0, None
        if has == "predictions":
            predicted[missing[name]] = False
            ids = [digest[:16] for digest in everything.sha256]
            # Labels and photos are found by name.
            logits = 8.0 * predicted - 4
            predictions = CrossValidated(
                ids[::-1], LABELS[::-1], logits[::-1, ::-1], predicted[::-1, ::-1]
            )
        decision = registry.challenge(name, 3, predictions=predictions)
        expected[name] = predicted[40 - size :]
    assert registry.comparison.photos.files == everything.files[40 - size :]
    targets = everything.targets[40 - size :]
    row = registry.comparison.scores.set_index("metric").loc["f1_micro"]
    for name, column in (("champion", "champion"), ("better", "challenger")):
        assert row[column] == pytest.approx(f1_score(targets, expected[name], average="micro"))
    evaluated_on = "test" if challenger_has == "test" else "cross-validation"
    assert decision["split"] == evaluated_on
    assert decision["champion"] == (row["low"] > 0)
    excluded = [note for note in decision["notes"] if note.startswith("32 of 40 were excluded")]
    assert bool(excluded) == (champion_has == "test")
    page = registry.page(decision)
    assert ("come from models that were not trained on it" in page) == (evaluated_on != "test")


@pytest.mark.parametrize("left", [0, 4])
def test_too_few_photos_left_to_compare(registry: Registry, left: int) -> None:
    registry.challenge("first", 1)
    parts = [*registry.datasets.values()]
    parts[2] = take_photos(parts[2], np.arange(left))
    registry.datasets["test"] = join_datasets(parts)
    decision = registry.challenge("few", 3)
    assert decision["reason"].endswith(f"the number of photos to compare on is {left}, below 5")
    assert decision["notes"][0].startswith(f"16 of {16 + left} were excluded: champion version 1")
    assert decision["notes"][-1] == "to replace it, run `phototag promote 2`"
    assert (decision["champion"], registry.comparison, registry.champion()) == (False, None, 1)


def test_champion_without_a_list_of_photos_stays(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.files["1"][1].unlink()
    decision = registry.challenge("better", 3)
    assert "champion version 1 cannot be compared: it was registered before" in decision["reason"]
    assert decision["notes"] == ["to replace it, run `phototag promote 2`"]
    assert (decision["champion"], registry.comparison, registry.champion()) == (False, None, 1)


def test_champion_that_is_registered_again_keeps_its_comparison(registry: Registry) -> None:
    first = registry.challenge("first", 1)
    assert registry.challenge("first", 1)["reason"] == first["reason"]
    won = registry.challenge("better", 3)
    again = registry.challenge("better", 3)
    assert again["reason"] == won["reason"]
    assert again["notes"] == [*won["notes"], "version 2 already was the champion"]
    same = ("version", "champion", "previous_champion", "photos", "challenge")
    assert [again[key] for key in same] == [won[key] for key in same]
    assert registry.comparison is not None
    registry.datasets["test"] = take_photos(registry.datasets["test"], np.arange(3))
    decision = registry.challenge("better", 3)
    assert (decision["champion"], registry.champion()) == (True, 2)
    assert decision["reason"].endswith("the number of photos to compare on is 3, below 5")
    assert versions.roll_back(registry.store, "")["version"] == 1
    # After a rollback, the champion is the first version, which replaced none.
    assert registry.challenge("first", 1)["reason"] == first["reason"]
    registry.store.client.delete_model_version("phototag", "1")
    versions.promote(registry.store, "2", "")
    assert (
        registry.challenge("better", 3)["reason"] == "the files of champion version 1 were deleted"
    )


def test_differences_that_round_to_zero_have_no_minus_sign(registry: Registry) -> None:
    registry.challenge("first", 1)
    decision = registry.challenge("better", 3)
    scores = registry.comparison.scores
    for table in (scores, registry.comparison.labels):
        table[["difference", "low"]] = -1e-6
    text = registry.page(decision) + comparison.judge(scores)[1]
    assert text.count("+0.0000") > len(scores)
    assert "-0.0" not in text
