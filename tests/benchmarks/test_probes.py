import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.probes import Photos, Probes, assign_folds, cross_validate


def test_probes_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 30)).astype(np.float32) @ rng.normal(size=(30, 30))
    features = (features - features.mean(0)) / features.std(0)
    targets = (features[:, :2] + rng.normal(size=(200, 2)) > 1).astype(np.int8)
    train = rng.random((3, 200)) < 0.8
    probes = Probes(features, targets, train)
    for l2 in (0.1, 0.01):
        found = probes.fit(l2)
    for part, rows in enumerate(train):
        for label in range(2):
            strength = 1 / (0.01 * 2 * rows.sum())
            model = LogisticRegression(C=strength, tol=1e-8, max_iter=1000)
            expected = model.fit(features[rows], targets[rows, label]).decision_function(features)
            np.testing.assert_allclose(found[:, part, label], expected, atol=0.02)


def test_out_of_fold_logits_come_from_the_other_folds() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 5)).astype(np.float32)
    targets = (features[:, :2] > 0.5).astype(np.int8)
    groups = [str(row // 2) for row in range(120)]
    logits, strengths = cross_validate(Photos(targets, groups), features)
    folds = assign_folds(Photos(targets, groups))
    assert set(strengths) <= {0.1 * 10 ** (-step / 4) for step in range(16)}
    for seed, fold in enumerate(folds):
        assert (fold[::2] == fold[1::2]).all()  # photos of a group are in one fold
        assert (logits[seed][fold < 0] == 0).all()
        assert (logits[seed][fold >= 0] != 0).all()
        own = np.flatnonzero(fold >= 0)
        part = fold[own] != 0
        scaled = (features - features.mean(0)) / features.std(0)
        model = LogisticRegression(C=1 / (strengths[seed] * 2 * part.sum()), tol=1e-8)
        model.fit(scaled[own[part]], targets[own[part], 0])
        left_out = own[~part]
        expected = model.decision_function(scaled[left_out])
        np.testing.assert_allclose(logits[seed, left_out, 0], expected, rtol=0.02, atol=0.02)
