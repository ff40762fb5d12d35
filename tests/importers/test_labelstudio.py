import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from phototag.base.errors import InputError
from tests.importers.imports import annotate, make_task, paint, run_import, write

EXPORT = [
    make_task(41, "/data/upload/3/8a1b2c3d-one.png", annotate("cat", "red sofa")),
    make_task(42, "/data/local-files/?d=holiday/two%20b.png", annotate("cat")),
    make_task(43, "three.png"),
    make_task(44, "https://photos.example/x/four.png?w=9", annotate()),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value, name in enumerate(["one.png", "holiday/two b.png", "three.png", "four.png"]):
        paint(tmp_path / "in" / name, value)
    return tmp_path / "in"


def test_choices_are_labels_and_open_task_is_unknown(folder: Path, tmp_path: Path) -> None:
    found = run_import(write(folder / "export.json", EXPORT), tmp_path / "raw.zip")
    assert found.summary.description == "Label Studio export: 4 tasks, 3 completed"
    assert found.carried == {
        "one.png": "cat red sofa",
        "holiday/two b.png": "cat",
        "three.png": "",
        "four.png": "",
    }
    assert found.summary.count_labels() == {"cat": 2, "red sofa": 1}
    assert found.unknown == {"three.png": "cat red sofa"}
    assert list(found.ids.values()) == ["41", "42", "43", "44"]
    assert found.summary.notes == []


@pytest.mark.parametrize(
    ("annotations", "carried", "unknown"),
    [
        ([annotate("cat"), annotate("cat", "dog")], "cat", "dog"),
        ([annotate("cat"), annotate("dog", ground_truth=True)], "dog", ""),
        ([annotate("cat"), annotate("dog", was_cancelled=True)], "cat", ""),
        ([annotate("dog", was_cancelled=True)], "", "cat dog"),
        ([annotate("cat"), annotate("dog")], "", "cat dog"),
        ([annotate("cat"), annotate()], "", "cat"),
    ],
)
def test_labels_on_which_annotations_differ_are_unknown(
    folder: Path, tmp_path: Path, annotations: list[dict[str, Any]], carried: str, unknown: str
) -> None:
    export = [
        make_task(1, "one.png", *annotations),
        make_task(2, "four.png", annotate("cat", "dog")),
    ]
    found = run_import(write(folder / "export.json", export), tmp_path / "raw.zip")
    assert found.carried == {"one.png": carried, "four.png": "cat dog"}
    assert found.unknown == ({"one.png": unknown} if unknown else {})


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/data/local-files/?d=my%20photos/a%2Bb%26c%23d.png", "my photos/a+b&c#d.png"),
        ("/data/local-files/?d=my photos/a+b&c#d.png", "my photos/a+b&c#d.png"),
        ("/data/local-files/?d=my+photos/a.png", "my photos/a.png"),
        ("/data/local-files/?d=12%3A30.png", "12%3A30.png"),
        ("/data/local-files/?d=12%3A30.png", "12:30.png"),
        ("/data/local-files/?d=photos%5Ca.png", "a.png"),
        ("/data/local-files/?d=photos\\a.png", "photos/a.png"),
        ("http://localhost:8080/data/local-files/?d=caf%E9.png", os.fsdecode(b"caf\xe9.png")),
        ("https://bucket.example/a/b%20c.png?X-Amz-Date=1&d=7&X-Amz-Signature=ab", "b c.png"),
        ("s3://bucket/a/b#1 50%.png", "b#1 50%.png"),
        ("/storage-data/uploaded/?filepath=upload/3/8a1b2c3d-b.png", "b.png"),
        ("/data/upload/3/3-8a1b2c3d-b.png", "b.png"),
        ("/data/upload/b_ZoqW18z.png", "b.png"),
        ("/data/upload/3/8a1b2c3d-b_ZoqW18z.png", "b.png"),
        ("/data/upload/b_ZoqW18z.png", "b_ZoqW18z.png"),
        ("C:\\Users\\Ann\\photos\\b.png", "photos/b.png"),
        ("/home/ann/photos/b.png", "photos/b.png"),
        ("line\rbreak.png", "line\rbreak.png"),
    ],
)
def test_photo_is_found_by_its_address(tmp_path: Path, address: str, file: str) -> None:
    paint(tmp_path / "in" / file, 1)
    # The file name before the upload may stand beside the address.
    for number, more in enumerate(({}, {"original_filename": "c.png", "text": "A cat."})):
        task = make_task(1, address, annotate("cat"))
        task["data"] |= more
        source = write(tmp_path / "in/export.json", [task])
        hints = {"images": tmp_path / "in"}
        summary = run_import(source, tmp_path / f"raw{number}", **hints).summary
        assert [photo.name for photo in summary.photos] == [file]


def test_original_name_is_used_if_the_upload_is_missing(tmp_path: Path) -> None:
    paint(tmp_path / "in/c.png", 1)
    task = make_task(1, "https://bucket.example/7f3a.png", annotate("cat"))
    task["data"]["original_filename"] = "c.png"
    found = run_import(write(tmp_path / "in/export.json", [task]), tmp_path / "raw.zip")
    assert found.carried == {"c.png": "cat"}


def test_tasks_of_the_same_photo_are_joined_if_they_are_equal(folder: Path, tmp_path: Path) -> None:
    tasks = [
        make_task(1, "/data/upload/3/8a1b2c3d-one.png", annotate("cat", "dog")),
        make_task(2, "/data/upload/3/99999999-one.png", annotate("dog", "cat")),
    ]
    source = write(folder / "export.json", tasks)
    found = run_import(source, tmp_path / "raw.zip")
    assert found.carried == {"one.png": "cat dog"}
    assert found.summary.notes[0].endswith("with the same labels: 1")
    write(source, [*tasks, make_task(3, "one.png", annotate("cat"))])
    with pytest.raises(InputError, match=r"\(task 3\): .*one\.png is already listed in .*task 1\)"):
        run_import(source, tmp_path / "again.zip")


def test_tasks_with_predictions_alone_are_unknown(folder: Path, tmp_path: Path) -> None:
    names = ["one.png", "three.png", "four.png"]
    tasks = [make_task(number, name) for number, name in enumerate(names)]
    tasks[0]["annotations"] = [annotate("cat")]
    tasks[1] |= dict.fromkeys(("id", "annotations"))
    for key in ("id", "annotations"):
        del tasks[2][key]
    found = run_import(write(folder / "export.json", tasks), tmp_path / "raw.zip")
    assert found.carried == {"one.png": "cat", "three.png": "", "four.png": ""}
    assert found.unknown == {"three.png": "cat", "four.png": "cat"}
    assert found.ids == {"one.png": "0", "three.png": "", "four.png": ""}


def test_names_on_the_path_of_a_taxonomy_are_labels(folder: Path, tmp_path: Path) -> None:
    paths = [["animal", "cat"], ["animal", "dog", "poodle"], ["plant"]]
    taxonomy = {"type": "taxonomy", "from_name": "t", "value": {"taxonomy": paths}}
    nested = {"type": "choices", "from_name": "c", "value": {"choices": [["place", "home"]]}}
    task = make_task(1, "one.png", annotate(result=[taxonomy, nested]))
    found = run_import(write(folder / "export.json", [task]), tmp_path / "raw.zip")
    assert found.carried == {"one.png": "animal cat dog home place plant poodle"}


def test_region_labels_count_and_other_results_do_not(folder: Path, tmp_path: Path) -> None:
    task = make_task(1, "one.png", annotate("cat"))
    result = task["annotations"][0]["result"]
    box = {"x": 50.8, "y": 5.9, "width": 12.4, "height": 10.5, "rectanglelabels": ["moon"]}
    result.append({"type": "rectanglelabels", "from_name": "tag", "value": box})
    result.append({"type": "textarea", "from_name": "note", "value": {"text": ["nice"]}})
    result.append({"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"})
    found = run_import(write(folder / "export.json", [task]), tmp_path / "raw.zip")
    assert found.carried == {"one.png": "cat moon"}


def changed(**values: Any) -> list[dict[str, Any]]:
    export = deepcopy(EXPORT)
    export[1].update(values)
    return export


def chosen(**values: Any) -> list[dict[str, Any]]:
    export = deepcopy(EXPORT)
    export[1]["annotations"][0]["result"][0].update(values)
    return export


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"export\.json: unknown format"),
        ([{"id": 1, "x": ["data", "annotations"]}], r"json: 0\.data is missing"),
        (changed(id=[]), r"json: 1\.id\.int: input should be a valid integer, not \[\]"),
        (changed(data={}), r"json: \[1\] \(task 42\): data contains 0 photos, should contain 1"),
        (changed(data={"a": "one.png", "b": "four.png"}), r"data contains 2 photos"),
        (changed(data={"image": "gone.png"}), r"\(task 42\): .*gone\.png is missing: .*--images"),
        (changed(data={"image": "../outside.png"}), r"\(task 42\): .* is missing: fix the name"),
        (changed(data=[]), r"json: 1\.data: input should be an object"),
        (changed(annotations={}), r"json: 1\.annotations: input should be a valid array"),
        (changed(data={"image": "data:image/png;base64,iVBO/9k"}), r"task 42\): .* as a data URL"),
        (changed(annotations=[{}]), r"json: 1\.annotations\.0\.result is missing"),
        (chosen(value={"choices": "cat"}),
         r"\(task 42\): choices should be a list of labels, not 'cat'"),
        (chosen(value={"choices": [3]}), r"choices should be a list of labels, not \[3\]"),
        (chosen(value={"choices": ["a/b"]}), r"\(task 42\): label 'a/b' cannot be a file name"),
        (chosen(value=[]), r"json: 1\.annotations\.0\.result\.0\.value: input should be"),
        ([make_task(1, "one.png")], r"json: no photo has a label: label at"),
        ([make_task(1, "one.png", annotate())], r"json: no photo has a label"),
    ],
)  # fmt: skip
def test_error_names_file_and_task(
    folder: Path, tmp_path: Path, content: Any, message: str
) -> None:
    paint(tmp_path / "outside.png", 9)
    source = write(folder / "export.json", content)
    with pytest.raises(InputError, match=message) as error:
        run_import(source, tmp_path / "raw.zip")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "raw.zip").exists()
