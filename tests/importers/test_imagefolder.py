from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from phototag.base.errors import InputError
from tests.importers.imports import paint, run_import, write

# Example of https://huggingface.co/docs/datasets/image_dataset.
CSV = "file_name,label\n1.png,cat\n2.png,dog\nmore/3.png,\n"
LINES = """{"file_name": "1.png", "labels": ["cat", "red sofa"], "text": "A cat; red"}
{"file_name": "2.png", "labels": []}
{"file_name": "more/3.png", "labels": null}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value, name in enumerate(["1.png", "2.png", "more/3.png"]):
        paint(tmp_path / "in" / name, value)
    return tmp_path / "in"


def test_metadata_csv_is_read(folder: Path, tmp_path: Path) -> None:
    write(folder / "metadata.csv", CSV)
    found = run_import(folder, tmp_path / "raw.zip")
    assert found.summary.description == "Hugging Face ImageFolder: 3 rows"
    assert found.carried == {"1.png": "cat", "2.png": "dog", "more/3.png": ""}
    assert found.unknown == {}


def test_metadata_jsonl_lists_are_labels_and_null_is_unknown(folder: Path, tmp_path: Path) -> None:
    write(folder / "metadata.jsonl", LINES)
    found = run_import(folder, tmp_path / "raw.zip")
    assert found.carried == {"1.png": "cat red sofa", "2.png": "", "more/3.png": ""}
    assert found.unknown == {"more/3.png": "cat red sofa"}
    assert found.summary.notes == ["skipped columns: text"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (['["traffic light"]', '["cat", "red sofa"]', "[]"], ["traffic light", "cat red sofa", ""]),
        (['"traffic light"', '"cat, striped"', '""'], ["traffic light", "cat, striped", ""]),
        (['"cat"', "\"['red sofa']\"", "[3]"], ["cat", "red sofa", "3"]),
        (['["it\'s"]', '["a # b"]', '["a", "a"]'], ["it's", "a # b", "a"]),
    ],
)
def test_lists_are_labels_and_a_text_is_one_label(
    folder: Path, tmp_path: Path, values: list[str], labels: list[str]
) -> None:
    names = ["1.png", "2.png", "more/3.png"]
    rows = zip(names, values, strict=True)
    lines = "".join(f'{{"file_name": "{name}", "tags": {value}}}\n' for name, value in rows)
    write(folder / "metadata.jsonl", lines)
    assert run_import(folder, tmp_path / "raw.zip").carried == dict(zip(names, labels, strict=True))


def test_metadata_parquet_is_read(folder: Path, tmp_path: Path) -> None:
    names = ["1.png", "2.png", "more/3.png"]
    table = pd.DataFrame({"file_name": names, "labels": [["cat", "red sofa"], [], None]})
    table.to_parquet(folder / "metadata.parquet")
    found = run_import(folder, tmp_path / "raw.zip")
    assert found.carried == {"1.png": "cat red sofa", "2.png": "", "more/3.png": ""}
    assert found.unknown == {"more/3.png": "cat red sofa"}
    photos = [{"bytes": (folder / name).read_bytes(), "path": name} for name in names]
    table["image"] = pd.Series(photos)
    table.to_parquet(folder / "metadata.parquet")
    with pytest.raises(InputError, match=r"parquet cannot be read as a table .*, and photos"):
        run_import(folder, tmp_path / "again.zip")
    (folder / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"parquet cannot be read as a table of file names"):
        run_import(folder, tmp_path / "again.zip")


def test_separator_splits_texts_and_keeps_lists(folder: Path, tmp_path: Path) -> None:
    lines = LINES.replace("[]", '"cat dog"')
    write(folder / "metadata.jsonl", lines)
    found = run_import(folder, tmp_path / "raw.zip", separator=" ")
    assert found.carried == {"1.png": "cat red sofa", "2.png": "cat dog", "more/3.png": ""}
    assert list(found.summary.count_labels()) == ["cat", "dog", "red sofa"]


def test_missing_values_are_unknown(folder: Path, tmp_path: Path) -> None:
    lines = LINES.replace("null", "NaN").replace("[]", '["cat", null], "group": NaN')
    write(folder / "metadata.jsonl", lines)
    found = run_import(folder, tmp_path / "raw.zip")
    assert found.carried == {"1.png": "cat red sofa", "2.png": "cat", "more/3.png": ""}
    assert found.unknown == {"2.png": "red sofa", "more/3.png": "cat red sofa"}
    assert found.summary.notes[1:] == [
        "cells with 'None', read as unknown labels: 1",
        "cells with 'nan', read as unknown labels: 1",
    ]
    assert not any(photo.group for photo in found.summary.photos)


def test_metadata_may_be_one_hot(folder: Path, tmp_path: Path) -> None:
    lines = """{"file_name": "1.png", "cat": true, "Dog": false, "id": 7}
{"file_name": "2.png", "cat": null, "Dog": 1}
{"file_name": "more/3.png", "Dog": 0}
"""
    write(folder / "metadata.jsonl", lines)
    found = run_import(folder, tmp_path / "raw.zip")
    assert found.carried == {"1.png": "cat", "2.png": "Dog", "more/3.png": ""}
    assert found.unknown == {"2.png": "cat", "more/3.png": "cat"}


def test_each_split_has_its_metadata_file(tmp_path: Path) -> None:
    for value, name in enumerate(["train/1.png", "test/1.png", "test/2.png"]):
        paint(tmp_path / "in/data" / name, value)
    write(tmp_path / "in/data/train/metadata.csv", "file_name,label\n1.png,cat;sofa\n")
    write(tmp_path / "in/data/test/metadata.jsonl", '{"file_name": "1.png", "label": "dog"}')
    found = run_import(tmp_path / "in", tmp_path / "raw.zip")
    assert found.carried == {"data/test/1.png": "dog", "data/train/1.png": "cat sofa"}
    note = "skipped photos that are not listed: 1, such as data/test/2.png"
    assert found.summary.notes == [note]


def test_labels_that_one_of_several_metadata_files_lacks_are_unknown(tmp_path: Path) -> None:
    for value, name in enumerate(["a/1.png", "b/2.png"]):
        paint(tmp_path / "in" / name, value)
    write(tmp_path / "in/a/metadata.csv", "file_name,cat,dog\n1.png,1,1\n")
    write(tmp_path / "in/b/metadata.csv", "file_name,cat\n2.png,1\n")
    found = run_import(tmp_path / "in", tmp_path / "raw.zip", format="imagefolder")
    assert found.unknown == {"b/2.png": "dog"}


def test_class_folders_with_metadata_are_refused_as_ambiguous(tmp_path: Path) -> None:
    for value, name in enumerate(["cats/1.png", "dogs/2.png"]):
        paint(tmp_path / "in" / name, value)
    write(tmp_path / "in/metadata.csv", "file_name,tags\ncats/1.png,big\ndogs/2.png,small\n")
    message = (
        r"in can be read as one folder per label or as a Hugging Face ImageFolder "
        r"\(metadata\.csv\): choose with --as folders or --as imagefolder"
    )
    with pytest.raises(InputError, match=message):
        run_import(tmp_path / "in", tmp_path / "raw.zip")
    for kind, labels in (("folders", ["cats", "dogs"]), ("imagefolder", ["big", "small"])):
        found = run_import(tmp_path / "in", tmp_path / kind, format=kind)
        assert list(found.summary.count_labels()) == labels


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "", r"metadata\.csv:1: no column 'file'"),
        ("metadata.csv", "file_name,label\n9.png,cat\n", r"metadata\.csv:2: .*9\.png is missing"),
        ("metadata.csv", "file_name,label\n../outside.png,cat\n", r":2: .* is outside .*in:"),
        ("metadata.csv", "file_name,text\n1.png,A cat.\n", r"metadata\.csv:1: no column of labels"),
        ("metadata.csv", "name,label\n1.png,cat\n", r"metadata\.csv:1: no column 'file'"),
        ("metadata.jsonl", "", r"metadata\.jsonl:1: no column 'file'"),
        ("metadata.jsonl", "{\n}", r"metadata\.jsonl:1: not valid JSON: EOF"),
        ("metadata.jsonl", LINES + "[1]\n", r"metadata\.jsonl:4: .*should be an object"),
        ("metadata.jsonl", LINES + '{"labels": ["cat"]}', r"metadata\.jsonl:4: no file name"),
        ("metadata.jsonl", '{"file_name": 5, "label": "x"}', r":1: .*5 is missing"),
        ("metadata.jsonl", '{"file_name": "1.png", "tags": "A cat sits."}\n{"file_name": "2.png"}',
         r":1: .*A cat sits.* seems to be a caption: rename column 'tags' if it cont"),
        ("metadata.jsonl", '{"file_name": "1.png", "text": "A cat."}', r":1: no column of labels"),
        ("metadata.jsonl", LINES.replace("[]", '[["x"]]'), r":2: labels should be a list of lab"),
        ("metadata.jsonl", LINES.replace("2.png", "9.png"), r":2: .*9\.png is missing"),
        ("metadata.jsonl", LINES.replace("2.png", "1.png"), r":2: .*1\.png is already listed"),
        ("metadata.jsonl", LINES.replace("red sofa", "a/b"), r":1: label 'a/b' cannot be"),
        ("metadata.jsonl", LINES.replace('"cat", "red sofa"', ""), r"in: no photo has a label"),
        ("metadata.jsonl", '{"file_name": "1.png", "objects": {"categories": [1]}}',
         r"metadata\.jsonl:1: no column of labels"),
    ],
)  # fmt: skip
def test_error_names_file_and_line(
    folder: Path, tmp_path: Path, name: str, content: Any, message: str
) -> None:
    paint(tmp_path / "outside.png", 9)
    write(folder / name, content)
    with pytest.raises(InputError, match=message) as error:
        run_import(folder, tmp_path / "raw.zip")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "raw.zip").exists()


def test_two_metadata_files_in_one_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    write(folder / "metadata.csv", CSV)
    write(folder / "metadata.jsonl", LINES)
    with pytest.raises(InputError, match=r"jsonl:1: .*1\.png is already listed in .*csv:2, with"):
        run_import(folder, tmp_path / "raw.zip")
