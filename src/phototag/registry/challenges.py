"""Decision about a new version, the challenger: does it replace the champion?

Both models are scored on the photos on which the challenger was evaluated, with the current labels:
on test or, if the challenger was evaluated by cross-validation, on train and val. The champion is
scored again each time, because photos and labels may have changed since it was registered. The
comparison is fair for these reasons:

- The challenger was trained and selected on train and val, and neither has photos of test. In a
  cross-validation, each photo is predicted by a model that was neither trained nor selected on it.
- The champion may have been trained or selected on these photos. It then needs predictions by
  cross-validation. Other such photos, and all photos of their groups, are excluded (see `photos`).
- The exclusion depends on photos and groups only. Predictions and scores have no influence on it.
- Only the labels of both models are compared, and a corrected label counts for both models. If a
  user corrected only labels that one of the models contradicted, this model has an advantage.

The number of the challenge determines the level of the test (see `comparison`). All challenges of a
champion count, also those on earlier test photos.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, fingerprint
from phototag.dataset.targets import is_known
from phototag.metrics.selection import CROSS_VALIDATION, name_photos
from phototag.registry.comparison import (
    Comparison,
    Contestant,
    compare_models,
    coverage,
    judge,
)
from phototag.registry.decision import ADVICE, make_decision
from phototag.registry.lookup import get_version, list_versions, weights_digest
from phototag.registry.photos import read_ids, take_unseen
from phototag.registry.versions import (
    apply_decision,
    describe_label_changes,
    fetch_files,
    find_champion,
    find_replaced,
    has_files,
    read_decisions,
    take_evaluated,
)
from phototag.tracking.store import Store

Result = tuple[dict[str, Any], Comparison | None]


def challenge_champion(
    store: Store,
    version: str,
    challenger: Contestant,
    datasets: Mapping[str, Dataset],
    resamples: int,
    seed: int,
    features: Path | None = None,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> Result:
    """Compare a version with the champion on the same photos; if it wins, promote it.

    The version wins without a comparison if there is no champion, if the files of the champion were
    deleted, or if the champion has the same weights and thresholds. If the models cannot be
    compared, or if they are compared on val (there is no test split and no cross-validation), the
    champion stays. If the version already is the champion, it is compared with the champion that it
    replaced, and wins. The other arguments are those of `compare_models`.

    Returns:
        Decision in the format of `make_decision`, and the comparison, or None if the models were
        not compared. If they were, the decision also has the keys `split`, `photos` (fingerprint of
        the photos), `challenge` (number of the challenge) and `coverage` (of the intervals).
    """
    compare = partial(
        compare_models,
        challenger=challenger,
        resamples=resamples,
        seed=seed,
        features=features,
        renamed=renamed,
    )
    evaluated_on = "test" if len(datasets["test"]) else "val"
    if challenger.cross_validated is not None:
        evaluated_on = CROSS_VALIDATION
    with store.lock:
        while True:
            champion = find_champion(store)
            decision, comparison = _decide(
                store, version, champion, datasets, evaluated_on, renamed, compare
            )
            # The lock is local. If another machine changed the champion, decide again.
            if champion == find_champion(store):
                return apply_decision(store, decision), comparison


def _decide(
    store: Store,
    version: str,
    number: int | None,
    datasets: Mapping[str, Dataset],
    evaluated_on: str,
    renamed: Mapping[str, str],
    compare: Callable[..., Comparison],
) -> Result:
    again = number == int(version)  # the stage `register` was repeated
    number = find_replaced(store, version) if again else number
    decide = partial(make_decision, store.name, "challenge", int(version), number)
    if number is None:
        return decide(True, "there was no champion"), None
    name = f"champion version {number}"
    if not has_files(store, str(number)):
        return decide(True, f"the files of {name} were deleted"), None
    own, champion = (get_version(store, n) for n in (version, number))
    if weights_digest(own) == weights_digest(champion):
        return decide(True, f"{name} has the same weights and thresholds"), None
    changes = describe_label_changes(own, champion, renamed)
    advice = f"run `phototag promote {version}{' --new-labels' if changes else ''}`"
    evaluated, notes = take_evaluated(datasets, evaluated_on), list[str]()
    photos = evaluated
    with TemporaryDirectory() as folder:
        try:
            rival, listed = fetch_files(store, str(number), folder)
            if evaluated_on != "val":
                kept = rival.cross_validated.ids if rival.cross_validated else ()
                photos = take_unseen(evaluated, datasets, read_ids(listed), kept)
            if excluded := len(evaluated) - len(photos):
                notes.append(
                    f"{excluded} of {len(evaluated)} were excluded: {name} was trained or "
                    "selected on them, or on photos of their groups"
                )
            compared = fingerprint(photos)
            challenge = count_challenges(store, own, champion, compared)
            comparison = compare(photos, champion=rival, challenge=challenge)
        except InputError as error:
            notes += [] if again else [f"{ADVICE}{advice}"]
            return decide(again, f"{name} cannot be compared: {error}", notes), None
    wins, reason = judge(comparison.scores, challenge)
    notes = [*_count_compared(comparison, evaluated, photos, evaluated_on), *notes]
    if changes:
        notes.append(f"{len(comparison.photos.labels)} labels were compared ({changes})")
    notes.append(f"this was challenge {challenge} of {name}")
    if again:
        wins = True
        notes.append(f"version {version} already was the champion")
    elif evaluated_on == "val":
        wins = False
        reason = f"{name} stays: the challenger was selected on val, so that val is no evidence"
        notes.append(f"{ADVICE}set split.test above 0, or {advice}")
    details = {"split": evaluated_on, "photos": compared, "challenge": challenge}
    details["coverage"] = coverage(challenge)
    return decide(wins, reason, notes) | details, comparison


def _count_compared(
    comparison: Comparison, photos: Dataset, unseen: Dataset, evaluated_on: str
) -> list[str]:
    """Return lines whose counts add up, with that of the excluded photos, to all `photos`."""
    targets = comparison.photos.targets
    known = "" if comparison.photos.complete else f" ({is_known(targets).sum()} known entries)"
    named = name_photos(len(photos), evaluated_on)
    lines = [f"{len(targets)} of {named} were compared{known}"]
    if unlabelled := len(unseen) - len(targets):
        lines.append(f"{unlabelled} of {len(photos)} have no known label among those compared")
    return lines


def count_challenges(store: Store, own: ModelVersion, champion: ModelVersion, photos: str) -> int:
    """Return the number of a challenge among the champion's challenges, starting from 1.

    Versions with the same weights and thresholds count as one model. Therefore, a model that
    challenges the champion again on the same photos keeps its number. If a champion is registered
    again, the challenges of its earlier versions still count.

    Args:
        store: Store with the registry.
        own: Version of the challenger.
        champion: Version of the champion.
        photos: Fingerprint of the photos on which the models are compared.
    """
    versions = list_versions(store)
    champions = {int(v.version) for v in versions if weights_digest(v) == weights_digest(champion)}
    numbers: dict[tuple[str, str], int] = {}
    for version in versions:
        for decision in read_decisions(version):
            if "challenge" in decision and decision["previous_champion"] in champions:
                key = weights_digest(version), decision.get("photos", "")
                numbers[key] = min(decision["challenge"], numbers.get(key, decision["challenge"]))
    # A new number is one more than the highest number, because deleted versions also count.
    return numbers.get((weights_digest(own), photos), 1 + max(numbers.values(), default=0))
