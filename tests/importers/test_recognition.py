import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest

from phototag import cli
from phototag.base.errors import InputError
from phototag.decoding.sources import list_files
from phototag.importers.folders import Nested
from phototag.importers.importer import import_photos
from phototag.importers.recognition import WORDS
from phototag.verification.labels import read_labels
from phototag.verification.layout import find_layout
from tests.importers.imports import paint, run_import, write
from tests.importers.test_coco import INSTANCES, NAMES
from tests.importers.test_labelstudio import EXPORT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value, name in enumerate(["cats/1.png", "dogs/2.png"]):
        paint(tmp_path / "in" / name, value)
    return tmp_path / "in"


def test_the_command_line_offers_what_is_known() -> None:
    assert set(get_args(cli.SourceFormat)) == set(WORDS)
    assert get_args(cli.Nested) == get_args(Nested)


@pytest.mark.parametrize("place", ["", "annotations"])
def test_a_list_is_found_in_its_folder(tmp_path: Path, place: str) -> None:
    for value, name in enumerate(NAMES):
        paint(tmp_path / "in/images" / name, value)
    write(tmp_path / "in" / place / "instances_default.json", INSTANCES)
    write(tmp_path / "in/config.json", {"images": 3})
    write(tmp_path / "in/notes.csv", "what,when\nx,y\n")
    found = run_import(tmp_path / "in", tmp_path / "raw")
    assert found.summary.what.startswith("COCO instances")
    assert found.carried["images/000000037777.png"] == "person"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("all.csv", "file,cat,dog\ncats/1.png,1,0\n", r"a one-hot CSV \(all\.csv\).* --as one-hot"),
        ("all.json", INSTANCES, r"COCO instances \(all\.json\): say which: .* or --as coco"),
        ("all.json", EXPORT, r"a Label Studio export \(all\.json\).* or --as labelstudio"),
        ("metadata.jsonl", "{}", r"an imagefolder: .* --as folders or --as imagefolder"),
    ],
)
def test_class_folders_with_a_list_may_be_two_things(
    folder: Path, tmp_path: Path, name: str, content: Any, told: str
) -> None:
    write(folder / name, content)
    with pytest.raises(InputError, match=r"in can be read as a folder a class or as " + told):
        run_import(folder, tmp_path / "raw")
    assert run_import(folder, tmp_path / "raw", format="folders").summary.num_images == 2


def test_two_lists_of_a_kind_are_for_the_user_to_choose(folder: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write(folder / name, f"file,label\ncats/1.png,{name[0]}\n")
    with pytest.raises(InputError, match=r"\(b\.csv\): say which: give the file that counts as SO"):
        run_import(folder, tmp_path / "raw", format="list")
    assert run_import(folder / "b.csv", tmp_path / "raw").summary.label_counts == {"b": 1}


def test_numbered_photos_in_class_folders_with_label_files_are_numbered(tmp_path: Path) -> None:
    for number, name in enumerate(["a/im0.png", "b/im1.png"]):
        paint(tmp_path / "in" / name, number)
    assert run_import(tmp_path / "in", tmp_path / "raw").summary.what.startswith("a folder a class")
    write(tmp_path / "in/cat.txt", "1\n")
    assert import_photos(tmp_path / "in", tmp_path / "new").label_counts == {"cat": 1}
    assert list_files(tmp_path / "new") == [
        "annotations/cat.txt",
        "images/im0.png",
        "images/im1.png",
    ]
    paint(tmp_path / "in/b/other.png", 7)
    with pytest.raises(InputError, match=r"numbered photos .* or as a folder a class: say which"):
        import_photos(tmp_path / "in", tmp_path / "newer")


def test_what_was_imported_can_be_imported_again(folder: Path, tmp_path: Path) -> None:
    table = "file,cat,dog\ncats/1.png,1,\ndogs/2.png,?,1\n"
    write(tmp_path / "in.csv", table)
    first = import_photos(write(folder / "list.csv", table), tmp_path / "raw")
    layout = find_layout(tmp_path / "raw")  # as the pipeline reads it
    labels = read_labels(tmp_path / "raw", layout.annotations, layout.images)
    assert (labels.problems, layout.sources) == ([], "sources.csv")
    assert {label: column.tolist() for label, column in labels.targets.items()} == {
        "cat": [1, 0],
        "dog": [0, 1],
    }
    again = import_photos(tmp_path / "raw", tmp_path / "again")
    assert again.what == "numbered photos: 2, and 2 label files"
    assert again.label_counts == first.label_counts == {"cat": 1, "dog": 1}
    assert again.unknown_counts == first.unknown_counts == {"cat": 1, "dog": 1}
    (tmp_path / "raw/annotations/cat.txt").unlink()
    with pytest.raises(InputError, match=r"unknown/cat\.txt: annotations/ has no file of this nam"):
        import_photos(tmp_path / "raw", tmp_path / "newer")


@pytest.mark.parametrize(
    ("name", "hints", "message"),
    [
        ("", {"images": Path()}, "--images says nothing of a folder a class: leave it out"),
        ("", {"separator": ";"}, "--separator says nothing of a folder a class"),
        ("", {"potential": True}, "--potential says nothing of a folder a class"),
        ("", {"format": "coco"}, "in is not COCO instances; it may be a folder a class"),
        ("", {"format": "tags"}, "in is not a tags CSV; it may be a folder a class"),
        ("list.csv", {"nested": "all"}, "--nested says nothing of a one-hot CSV"),
        ("list.csv", {"annotations": Path()}, "--annotations says nothing of a one-hot CSV"),
        ("list.csv", {"separator": ";"}, "--separator says nothing of a one-hot CSV"),
        ("list.csv", {"format": "tags"}, r"list\.csv is no tags CSV: it looks like a one-hot CSV"),
        ("list.csv", {"format": "coco"}, r"list\.csv is not COCO instances, but a CSV"),
        ("all.json", {"format": "labelstudio"}, "is not a Label Studio export, but COCO inst"),
        ("all.json", {"separator": ";"}, "--separator says nothing of COCO instances"),
        ("gone.json", {}, r"gone\.json is missing: give a CSV or JSON that exists"),
        ("cats/1.png", {}, r"1\.png is neither a folder nor a zip"),
    ],
)
def test_what_the_user_says_must_fit_the_source(
    folder: Path, tmp_path: Path, name: str, hints: dict[str, Any], message: str
) -> None:
    lists = {"list.csv": "file,cat,dog\ncats/1.png,1,0\n", "all.json": INSTANCES}
    source = write(folder / name, lists[name]) if name in lists else folder / name
    with pytest.raises(InputError, match=message):
        run_import(source, tmp_path / "raw", **hints)


def test_a_zip_with_a_list_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("images/x.jpg", b"")
        archive.writestr("instances.json", b"{}")
    with pytest.raises(InputError, match=r"; unpack it first, for instances\.json"):
        import_photos(tmp_path / "in.zip", tmp_path / "raw.zip")
