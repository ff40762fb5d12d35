"""The stages from raw photos to splits, run on a few synthetic photos."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from phototag.base.errors import InputError
from phototag.dataset.manifest import read_kept
from phototag.dataset.targets import UNKNOWN
from phototag.decoding import formats, photos
from phototag.decoding.formats import FORMATS
from phototag.importers.additions import import_source
from phototag.importers.importer import import_photos
from phototag.importers.source import ImportOptions
from phototag.review.session import append_answer
from phototag.verification.corrections import COLUMNS, Answer
from phototag.verification.decode_cache import save_decode_cache
from stages import normalize_stats, resize, sample, split
from tests.conftest import SHIPPED_PARAMS
from tests.decoding.corpus import encode, picture
from tests.verification.test_decode_cache import record_decoded

COUNT = 60


def write_raw(folder: Path, numbers: list[int]) -> None:
    """Write 60 photos, of which the last two are copies of the first, under these numbers."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    pictures = [picture(seed) for seed in range(COUNT - 2)]
    pictures += [pictures[0], pictures[0].resize((100, 75))]
    carried = np.random.default_rng(0).random((COUNT, 3)) < (0.5, 0.3, 0.2)
    carried[-2:] = carried[0]
    for image, number in zip(pictures, numbers, strict=True):
        (folder / f"images/im{number}.jpg").write_bytes(encode(image))
    for label, name in enumerate(("bird", "cat", "dog")):
        lines = [f"{number}\n" for number, row in zip(numbers, carried, strict=True) if row[label]]
        (folder / f"annotations/{name}.txt").write_text("".join(lines))


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *mains: Any, **changes: Any) -> None:
    """Run stages in a folder whose params differ from the shipped ones."""
    values = yaml.safe_load(SHIPPED_PARAMS.read_text(encoding="utf-8"))
    values["data"]["raw"] = "raw"
    values["split"] |= {"val": 0.2, "test": 0.2}
    values["resize"] |= {"backend": "threading", "size": 96} | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(folder)
    for main in mains:
        main()


def splits_by_content(folder: Path) -> dict[str, str]:
    """Return SHA-256 -> split."""
    manifest = read_kept(folder / "data/manifest.csv")
    splits = pd.read_csv(folder / "data/splits.csv", keep_default_na=False)
    assert list(manifest["file"]) == list(splits["image"])
    return dict(zip(manifest["sha256"], splits["split"], strict=True))


def test_photo_without_a_decoder_stops_resize_until_the_decoder_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC does not rerun a stage that succeeded when a package is installed."""
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    (tmp_path / "raw/images/im7.jpg").write_bytes(encode(picture(7), "HEIF"))
    with monkeypatch.context() as patch:
        for module in (formats, photos):
            patch.setattr(module, "FORMATS", [name for name in FORMATS if name != "HEIF"])
        message = r"cannot decode: 1, such as images/im7\.jpg: HEIC requires .* `make setup-heic`"
        with pytest.raises(InputError, match=message):
            run(tmp_path, monkeypatch, resize.main, max_rejected=1)
    run(tmp_path, monkeypatch, resize.main)
    assert "images/im7.jpg" in set(read_kept(tmp_path / "data/manifest.csv")["file"])


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        ("\r", r"\r"),
        ("\n\t", r"\n\t"),
        ("\x1b[31m\x7f\x85", r"\x1b[31m\x7f\x85"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\udcff", r"\udcff"),
        (",\"'\r\n", ",\"'\\r\\n"),
    ],
)
def test_control_characters_in_names_are_escaped(
    end: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a CSV file, unescaped line breaks in names and groups would become rows."""
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    (tmp_path / "raw/images/im15.jpg").rename(tmp_path / f"raw/images/im15.jpg{end}")
    (tmp_path / f"raw/images/notes{end}").write_bytes(b"")
    (tmp_path / f"raw/annotations/notes{end}").write_bytes(b"")
    group = end.replace("\udcff", "?")  # sources.csv is UTF-8
    with (tmp_path / "raw/sources.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["file", "group"], ["im15.jpg", f"a{group}b"], ["im16.jpg", "c"]]
        )
    run(tmp_path, monkeypatch, resize.main, split.main, normalize_stats.main, max_rejected=1)
    manifest = read_kept(tmp_path / "data/manifest.csv")
    assert manifest["file"][14] == f"images/im15.jpg{shown}"
    assert manifest["source_group"][14] == f"a{'?' if '?' in group else shown}b"
    problems = pd.read_csv(tmp_path / "reports/resize/problems.csv", keep_default_na=False)
    assert list(problems["file"]) == [
        f"images/notes{shown}",
        f"annotations/notes{shown}",
    ]


def test_synthetic_dataset_is_written_only_if_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, monkeypatch, sample.main)
    folder = tmp_path / "data/sample"
    assert [path.name for path in folder.iterdir()] == ["README.txt"]
    shutil.rmtree(folder)  # as DVC does
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    values["data"]["raw"], values["sample"]["num_images"] = "./data/sample/", 3
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    sample.main()
    assert len([*(folder / "images").iterdir()]) == 3


def test_renamed_photos_are_split_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    found = []
    for name in "ab":
        numbers = [int(number) for number in rng.choice(5000, COUNT, replace=False)]
        write_raw(tmp_path / name / "raw", numbers)
        run(tmp_path / name, monkeypatch, resize.main, split.main, normalize_stats.main)
        found.append(splits_by_content(tmp_path / name))
    assert found[0] == found[1]
    assert len(found[0]) == COUNT - 1  # two files are the same bytes
    assert set(found[0].values()) == {"train", "val", "test"}
    stats = [(tmp_path / name / "data/stats.json").read_bytes() for name in "ab"]
    assert stats[0] == stats[1]


def test_duplicates_are_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    run(tmp_path, monkeypatch, resize.main, split.main)
    manifest = read_kept(tmp_path / "data/manifest.csv")
    group = manifest["duplicate_group"]
    assert group[0] == group[COUNT - 2] == group[COUNT - 1] != ""
    assert (group != "").sum() == 3
    splits = pd.read_csv(tmp_path / "data/splits.csv")
    assert splits.groupby("group")["split"].nunique().max() == 1
    rates = pd.read_csv(tmp_path / "reports/split/rates.csv")
    assert len(rates) == 3 * 3


def test_source_groups_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "group"])
        for number in range(COUNT):
            (tmp_path / f"p{number}.jpg").write_bytes(encode(picture(number)))
            writer.writerow([f"p{number}.jpg", "cat" if number % 2 else "dog", f"a{number // 4}"])
    import_photos(tmp_path / "mine.csv", tmp_path / "raw/001-mine.zip")
    run(tmp_path, monkeypatch, resize.main, split.main)
    manifest = read_kept(tmp_path / "data/manifest.csv")
    assert list(manifest["file"]) == [f"p{number}.jpg" for number in range(COUNT)]
    assert set(manifest["import"]) == {"001-mine"}
    assert manifest["source_group"].nunique() == COUNT // 4
    splits = pd.read_csv(tmp_path / "data/splits.csv")
    assert splits["split"].groupby(manifest["source_group"]).nunique().max() == 1
    assert splits["split"].nunique() == 3


def test_added_photos_are_decoded_alone_and_others_stay_in_their_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    for number in range(COUNT):
        path = tmp_path / f"a/{'cat' if number % 3 else 'dog'}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(number)))
    new = {f"cat/{number}.jpg": encode(picture(100 + number)) for number in range(12)}
    new["cat/small.jpg"] = encode(picture(3).resize((60, 45)))  # another size of dog/3.jpg
    for name, data in [*new.items(), ("owl/same.jpg", encode(picture(6)))]:
        path = tmp_path / "b" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    run(tmp_path, monkeypatch)
    options = ImportOptions()
    import_source(tmp_path, tmp_path / "a", tmp_path / "raw", add=False, options=options)
    resize.main()
    split.main()
    before = pd.read_csv(tmp_path / "data/splits.csv", index_col="image")
    import_source(tmp_path, tmp_path / "b", tmp_path / "raw", add=True, options=options)
    decoded = record_decoded(monkeypatch)
    resize.main()
    split.main()
    splits = pd.read_csv(tmp_path / "data/splits.csv", index_col="image")
    assert sorted(decoded) == sorted(new.values())
    assert splits[:COUNT]["split"].equals(before["split"])
    assert list(splits.index[COUNT:]) == [
        f"002-b/{name}" if name in before.index else name for name in sorted(new)
    ]
    assert splits["group"]["cat/small.jpg"] == splits["group"]["dog/3.jpg"]
    manifest = read_kept(tmp_path / "data/manifest.csv").set_index("file")
    assert manifest["import"].value_counts().to_dict() == {"001-a": COUNT, "002-b": len(new)}
    targets = {name: list(row) for name, *row in manifest[["cat", "dog", "owl"]].itertuples()}
    assert targets["dog/6.jpg"] == [0, 1, 1]
    assert targets["cat/small.jpg"] == [1, UNKNOWN, 0]
    assert set(manifest["owl"][:COUNT].drop("dog/6.jpg")) == {UNKNOWN}
    # Without the second import, the dataset is as it was before.
    (tmp_path / "raw/002-b.zip").unlink()
    resize.main()
    split.main()
    assert pd.read_csv(tmp_path / "data/splits.csv", index_col="image").equals(before)


def test_too_many_rejections_stop_after_writing_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    (tmp_path / "raw/images/im7.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 60 photos exceed resize\.max_rejected") as caught:
        run(tmp_path, monkeypatch, resize.main)
    assert "  images/im7.jpg  zero bytes\n" in str(caught.value)
    assert "zero bytes" in (tmp_path / "reports/resize/report.html").read_text()
    run(tmp_path, monkeypatch, resize.main, max_rejected=0.02)
    with pytest.raises(InputError, match=r"resize\.on_problem is fail"):
        run(tmp_path, monkeypatch, resize.main, max_rejected=0.02, on_problem="fail")


def test_system_files_are_not_rejected_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    for number in range(1, COUNT + 1):
        (tmp_path / f"raw/images/._im{number}.jpg").write_bytes(b"\0\5\x16\7")
    (tmp_path / "raw/annotations/._cat.txt").write_bytes(b"\0\5\x16\7")
    (tmp_path / "raw/images/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    run(tmp_path, monkeypatch, resize.main, max_rejected=0, on_problem="fail")
    assert len(read_kept(tmp_path / "data/manifest.csv")) == COUNT
    summary = json.loads((tmp_path / "reports/resize/summary.json").read_text())
    assert (summary["files"], summary["system_files"]) == (COUNT, COUNT + 2)
    assert summary["decisions"] == {"kept": COUNT}
    assert (tmp_path / "reports/resize/problems.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("label", ["mode", "file", "source_group"])
def test_label_named_like_a_column_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    (tmp_path / f"raw/annotations/{label}.txt").write_text("9\n")
    monkeypatch.setattr(resize, "prepare_photos", None)  # a call would fail
    with pytest.raises(InputError, match=f"the label '{label}' is a manifest column's name"):
        run(tmp_path, monkeypatch, resize.main)


def test_rare_label_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    (tmp_path / "raw/annotations/owl.txt").write_text("9\n")
    run(tmp_path, monkeypatch, resize.main, split.main)
    assert "warning: label 'owl' has no photos in" in capsys.readouterr().err


def test_invalid_network_is_refused_before_photos_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, monkeypatch)  # writes params.yaml; there are no photos
    values = yaml.safe_load((tmp_path / "params.yaml").read_text())
    values["model"]["name"] = "resnet19"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"model\.name: torchvision has no classifier 'resnet19'"):
        resize.main()


def test_unknown_targets_reach_splits_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    carried = set((tmp_path / "raw/annotations/cat.txt").read_text().split())
    doubts = [str(number) for number in range(1, COUNT + 1, 3) if str(number) not in carried]
    (tmp_path / "raw/unknown").mkdir()
    (tmp_path / "raw/unknown/cat.txt").write_text("\n".join(doubts))
    run(tmp_path, monkeypatch, resize.main, split.main, normalize_stats.main)
    manifest = read_kept(tmp_path / "data/manifest.csv")
    numbers = manifest["file"].str.extract(r"im(\d+)")[0]
    assert set(numbers[manifest["cat"] == UNKNOWN]) == set(doubts)
    assert set(numbers[manifest["cat"] == 1]) == carried
    assert (manifest[["bird", "dog"]] != UNKNOWN).all(axis=None)
    summary = json.loads((tmp_path / "reports/resize/summary.json").read_text())
    assert summary["unknown"] == {"cat": len(doubts)}

    train = manifest[pd.read_csv(tmp_path / "data/splits.csv")["split"] == "train"]
    stats = json.loads((tmp_path / "data/stats.json").read_text())
    assert stats["label_counts"]["cat"] == (train["cat"] == 1).sum()
    known = {label: (train[label] != UNKNOWN).sum() for label in ("bird", "cat", "dog")}
    assert stats["known_counts"] == known
    rates = pd.read_csv(tmp_path / "reports/split/rates.csv").set_index(["label", "split"])
    assert rates["known"]["cat", "train"] == stats["known_counts"]["cat"]


def test_answers_reach_manifest_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    run(tmp_path, monkeypatch, resize.main)
    plain = read_kept(tmp_path / "data/manifest.csv")
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    (tmp_path / "data/corrections.csv").write_text(",".join(COLUMNS) + "\n")
    resize.main()
    assert {path: path.read_bytes() for path in written} == written

    path = tmp_path / "data/corrections.csv"
    wrong = [plain.index[plain["cat"] == value][5] for value in (0, 1)]
    for row, answer in zip([*wrong, 9], ["yes", "no", "unsure"], strict=True):
        file, sha256 = plain.loc[row, ["file", "sha256"]]
        row = (file, sha256, "cat", answer, "?", "ann", "2025-01-01", "errors")
        append_answer(path, Answer(*row))
    late = Answer("im99.jpg", "?", "cat", "yes", "no", "ann", "2025-01-01", "errors")

    def answer_meanwhile(*arguments: Any) -> None:
        append_answer(path, late)
        save_decode_cache(*arguments)

    monkeypatch.setattr(resize, "save_decode_cache", answer_meanwhile)
    resize.main()
    split.main()
    manifest = read_kept(tmp_path / "data/manifest.csv")
    expected = plain["cat"].copy()
    expected[[*wrong, 9]] = np.array([1, 0, UNKNOWN], np.int8)
    assert manifest["cat"].tolist() == expected.tolist()
    assert manifest["reason"][wrong[0]] == "corrected: cat yes"
    assert (manifest[["bird", "dog"]] == plain[["bird", "dog"]]).all(axis=None)
    summary = json.loads((tmp_path / "reports/resize/summary.json").read_text())
    assert (summary["reasons"], summary["unknown"]) == ({"corrected": 3}, {"cat": 1})
    assert summary["label_problems"]["answer not applied"] == 1
    page = (tmp_path / "reports/resize/report.html").read_text()
    assert "<h3>corrected (3, kept)</h3>" in page
    assert "data/corrections.csv:5" in page


def test_edits_of_labels_reach_manifest_and_report_and_can_be_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    (tmp_path / "data").mkdir()
    edits, manifest = tmp_path / "data/labels.yaml", tmp_path / "data/manifest.csv"
    edits.write_text("# nothing\n")
    run(tmp_path, monkeypatch, resize.main)
    folders = (tmp_path / "data", tmp_path / "reports")
    written = {path: path.read_bytes() for folder in folders for path in folder.rglob("*.*")}
    plain = read_kept(manifest)
    row = int(np.flatnonzero(plain["cat"] == 0)[0])
    file, sha256 = plain["file"][row], plain["sha256"][row]
    answer = Answer(file, sha256, "cat", "yes", "no", "ann", "2025-01-01", "errors")
    append_answer(tmp_path / "data/corrections.csv", answer)

    edits.write_text("rename: {cat: puss}\nimply: {puss: [animal], dog: [animal]}\ndrop: [bird]\n")
    resize.main()
    edited = read_kept(manifest)
    assert list(edited.columns[-3:]) == ["animal", "dog", "puss"]
    cat = plain["cat"].copy()
    cat[row] = 1
    assert edited["puss"].tolist() == cat.tolist()
    expected = np.where((cat == 1) | (plain["dog"] == 1), 1, UNKNOWN)
    assert edited["animal"].tolist() == expected.tolist()
    assert edited["reason"][row] == "corrected: puss yes"
    summary = json.loads((tmp_path / "reports/resize/summary.json").read_text())
    assert summary["label_edits"]["rename cat: puss"] == (plain["cat"] == 1).sum()
    assert summary["label_edits"]["drop bird"] == (plain["bird"] == 1).sum()
    assert summary["renamed_labels"] == {"cat": "puss"}
    page = (tmp_path / "reports/resize/report.html").read_text()
    assert "<th>edit of labels</th><th>photos changed</th>" in page
    assert f"<tr><td>imply puss: animal</td><td>{(cat == 1).sum()}</td></tr>" in page

    edits.write_text("# nothing\n")
    (tmp_path / "data/corrections.csv").unlink()
    resize.main()
    assert {path: path.read_bytes() for path in written} == written


@pytest.mark.parametrize("text", ["drop: [owl]", "rename: {cat: cat}", "drop:\n\t- cat"])
def test_broken_edits_of_labels_stop_resize_before_photos_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labels.yaml").write_text(text)
    monkeypatch.setattr(resize, "prepare_photos", None)
    with pytest.raises(InputError, match=r"^data/labels\.yaml:"):
        run(tmp_path, monkeypatch, resize.main)
    assert not (tmp_path / "data/images.npy").exists()


def test_edits_that_are_written_while_photos_are_decoded_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC records the hash of labels.yaml after the stage, and would not run it again."""
    write_raw(tmp_path / "raw", list(range(1, COUNT + 1)))
    edits = tmp_path / "data/labels.yaml"

    def edit_labels(*arguments: Any) -> None:
        edits.write_text("drop: [cat]")
        save_decode_cache(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(resize, "save_decode_cache", edit_labels)
        with pytest.raises(InputError, match=r"labels\.yaml was changed .* `dvc repro` again"):
            run(tmp_path, patch, resize.main)
    monkeypatch.chdir(tmp_path)
    resize.main()
    assert "cat" not in read_kept(tmp_path / "data/manifest.csv")
