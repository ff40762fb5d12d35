from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phototag.base.errors import InputError
from phototag.synthetic.dataset import LABELS, draw_labels, write_dataset
from phototag.synthetic.scene import draw_scene
from phototag.verification.labels import read_labels
from phototag.verification.layout import find_layout


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_seed_gives_same_bytes_for_any_number_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed, jobs in (("a", 3, 1), ("b", 3, 2), ("c", 4, 2)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)  # the second pair of jobs runs in the same two workers
        write_dataset(Path("set"), 60, seed, jobs)
    a, b, c = (tree(tmp_path / name / "set") for name in "abc")
    assert a == b
    assert a["images/im1.jpg"] != c["images/im1.jpg"]
    assert [p.name for p in tmp_path.glob("*/*")] == ["set"] * 3


def test_written_label_files_equal_the_sampled_labels(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", 30, seed=1, n_jobs=1)
    layout = find_layout(tmp_path / "set")
    names = [f"images/im{number}.jpg" for number in range(1, 31)]
    assert sorted(layout.images) == sorted(names)
    read = read_labels(tmp_path / "set", layout.annotations, names).targets
    assert list(read) == list(LABELS)
    rng = np.random.default_rng(1)
    for row in range(30):
        assert {label for label, column in read.items() if column[row]} == draw_labels(rng)
    assert {Image.open(tmp_path / "set" / name).size for name in names} == {(128, 128)}


def test_label_rates_and_co_occurrences_match_the_real_data() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_labels(rng) for _ in range(20_000)]
    targets = np.array([[label in labels for label in LABELS] for labels in drawn])
    rate = dict(zip(LABELS, targets.mean(axis=0), strict=True))
    expected = {"people": 0.32, "female": 0.161, "male": 0.149, "portrait": 0.156}
    expected |= {"clouds": 0.055, "flower": 0.038, "night": 0.03, "tree": 0.026}
    for label, share in expected.items():
        assert rate[label] == pytest.approx(share, rel=0.15), label
    assert all(0.01 < rate[label] < 0.03 for label in ("baby", "bird", "car", "river", "sea"))
    assert (~targets.any(axis=1)).mean() == pytest.approx(0.49, abs=0.03)

    def given(label: str, condition: str) -> float:
        chosen = targets[targets[:, LABELS.index(condition)]]
        return float(chosen[:, LABELS.index(label)].mean())

    for part in ("female", "male", "portrait", "baby"):
        assert given("people", part) == 1
    assert given("portrait", "female") == pytest.approx(0.6, abs=0.05)
    assert given("female", "portrait") == pytest.approx(0.62, abs=0.07)
    assert 0.15 < given("clouds", "sea") < 0.4


@pytest.mark.parametrize("label", LABELS)
def test_each_label_changes_the_image(label: str) -> None:
    for seed in range(20):
        people = {"people"} if label in ("female", "male", "baby", "portrait") else set()
        shown = draw_scene({label} | people, np.random.default_rng(seed), 64)
        assert (shown.mode, shown.size) == ("RGB", (64, 64))
        empty = draw_scene(set(), np.random.default_rng(seed), 64)
        assert np.abs(np.asarray(shown, int) - np.asarray(empty, int)).mean() > 1


def test_non_empty_folder_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="set is not empty"):
        write_dataset(tmp_path / "set", 5, seed=0, n_jobs=1)
    assert tree(tmp_path / "set") == {"mine.txt": b"mine"}
