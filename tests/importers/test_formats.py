import shutil
from pathlib import Path
from typing import Any, get_args

import pytest

from phototag.base.errors import InputError
from phototag.cli import training
from phototag.decoding.sources import list_files, read_file
from phototag.importers.formats import FORMATS
from phototag.importers.importer import import_photos
from phototag.importers.source import ImportOptions
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


def test_command_line_offers_every_format() -> None:
    assert set(get_args(training.SourceFormat)) == set(FORMATS)


@pytest.mark.parametrize("place", ["", "annotations"])
def test_json_file_is_found_in_folder(tmp_path: Path, place: str) -> None:
    for value, name in enumerate(NAMES):
        paint(tmp_path / "in/images" / name, value)
    write(tmp_path / "in" / place / "instances_default.json", INSTANCES)
    write(tmp_path / "in/config.json", {"images": 3})
    write(tmp_path / "in/notes.csv", "what,when\nx,y\n")
    found = run_import(tmp_path / "in", tmp_path / "raw.zip")
    assert found.summary.description.startswith("COCO instances")
    assert found.carried["images/000000037777.png"] == "person"


@pytest.mark.parametrize(
    ("name", "content", "reading"),
    [
        ("all.csv", "file,cat,dog\ncats/1.png,1,0\n", r"a one-hot CSV \(all\.csv\).* --as one-hot"),
        ("all.json", INSTANCES, r"COCO instances \(all\.json\): choose with .* or --as coco"),
        ("all.json", EXPORT, r"a Label Studio export \(all\.json\).* or --as labelstudio"),
        (
            "metadata.jsonl",
            "{}",
            r"a Hugging Face ImageFolder \(metadata\.jsonl\): .* or --as imagefolder",
        ),
    ],
)
def test_class_folders_with_list_file_are_refused_as_ambiguous(
    folder: Path, tmp_path: Path, name: str, content: Any, reading: str
) -> None:
    write(folder / name, content)
    with pytest.raises(
        InputError, match=r"in can be read as one folder per label or as " + reading
    ):
        run_import(folder, tmp_path / "raw.zip")
    assert len(run_import(folder, tmp_path / "raw.zip", format="folders").summary.photos) == 2


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"file,label\ncats/1.png,\xe9t\xe9\n", r"a\.csv:2: not UTF-8"),
        ("a.csv", b"name;label\n1.png;cat\n", r"a\.csv:1: no column 'file'"),
        ("a.csv", b'file,label\n1.png,"cat\n', r"a\.csv:2: .*quotation mark"),
        ("a.jsonl", b"{\n", r"a\.jsonl:1: not valid JSON"),
        ("a.json", b'{"images": "\xe9"', r"a\.json:1: not UTF-8"),
    ],
)
def test_folder_with_a_broken_list_is_refused_with_the_reason(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    paint(tmp_path / "in/cats/1.png", 1)
    (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        run_import(tmp_path / "in", tmp_path / "raw.zip")


def test_lists_of_splits_in_two_formats_are_refused_with_both_formats(
    folder: Path, tmp_path: Path
) -> None:
    for split, photo in (("train", "cats/1.png"), ("val", "dogs/2.png")):
        write(folder / f"{split}.csv", f"file,tags,cat,dog\n{photo},{split},1,0\n")
    with pytest.raises(InputError, match="choose with --as folders or --as list or --as one-hot"):
        run_import(folder, tmp_path / "raw.zip")
    found = run_import(folder, tmp_path / "raw.zip", format="list")
    assert found.carried == {"cats/1.png": "train", "dogs/2.png": "val"}


def test_two_list_files_are_refused_with_both(folder: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write(folder / name, f"file,label\ncats/1.png,{name[0]}\n")
    with pytest.raises(InputError, match=r"\(b\.csv\): pass one of these files as SO"):
        run_import(folder, tmp_path / "raw.zip", format="list")
    assert run_import(folder / "b.csv", tmp_path / "raw.zip").summary.count_labels() == {"b": 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": "file,label\na\0b.png,x\n"}, r"a\x00b.png is missing"),
        ({"a.csv": "file,label\na\0/b.png,x\n"}, r"a\x00/b.png is missing"),
        ({"a.csv": 'file,label\n"a\nb.png",x\n'}, r"a\nb.png is missing"),
        ({f"a\n{n}.csv": "file,label\nx.png,x\n" for n in range(2)}, r"labels (a\n0.csv) or as"),
    ],
)
def test_control_characters_in_names_are_escaped(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        write(tmp_path / "in" / name, text)
    with pytest.raises(InputError) as error:
        import_photos(tmp_path / "in", tmp_path / "raw.zip")
    assert message in str(error.value)
    assert str(error.value).isprintable()


def test_notes_are_printable(folder: Path, tmp_path: Path) -> None:
    paint(folder / "x\n\x1b[31m/1.png", 3)
    write(folder / "metadata.csv", "file_name,label\ncats/1.png,cat\ndogs/2.png,dog\n")
    (note,) = import_photos(folder, tmp_path / "raw.zip", ImportOptions(format="imagefolder")).notes
    assert note.endswith(r"such as x\n\x1b[31m/1.png")


def test_numbered_photos_with_label_files_are_not_class_folders(tmp_path: Path) -> None:
    for number in range(2):
        paint(tmp_path / f"in/images/im{number}.png", number)
    write(tmp_path / "in/annotations/cat.txt", "1\n")
    assert import_photos(tmp_path / "in", tmp_path / "new.zip").count_labels() == {"cat": 1}
    assert list_files(tmp_path / "new.zip") == [
        "annotations/cat.txt",
        "images/im0.png",
        "images/im1.png",
        "sources.csv",
    ]
    paint(tmp_path / "in/thumbs/im1.png", 7)
    with pytest.raises(InputError, match=r"numbered photos .* or as one folder per label: choose"):
        import_photos(tmp_path / "in", tmp_path / "newer.zip")


def test_result_of_import_can_be_imported_again(folder: Path, tmp_path: Path) -> None:
    table = "id,file,group,cat,dog\nx,cats/1.png,ann,1,\ny,dogs/2.png,bob,?,1\n"
    first = import_photos(write(folder / "list.csv", table), tmp_path / "raw.zip")
    layout = find_layout(tmp_path / "raw.zip")  # as the pipeline reads it
    labels = read_labels(tmp_path / "raw.zip", layout.annotations, layout.images)
    assert (labels.problems, layout.sources) == ([], "sources.csv")
    assert {label: column.tolist() for label, column in labels.targets.items()} == {
        "cat": [1, 0],
        "dog": [0, 1],
    }
    # The user may save a photo in another format.
    shutil.unpack_archive(tmp_path / "raw.zip", tmp_path / "raw")
    (tmp_path / "raw/images/im2.png").rename(tmp_path / "raw/images/im2.JPG")
    import_photos(tmp_path / "raw", tmp_path / "again.zip")
    again = import_photos(tmp_path / "again.zip", tmp_path / "last.zip")
    rows = read_file(tmp_path / "last.zip", "sources.csv").decode().splitlines()
    assert [row.rpartition(",")[0] for row in rows] == [
        "file,source,group,id",
        "im1.png,cats/1.png,ann,x",
        "im2.jpg,dogs/2.png,bob,y",
    ]
    assert again.description == "numbered photos: 2, label files: 2"
    assert again.count_labels() == first.count_labels() == {"cat": 1, "dog": 1}
    assert again.count_unknown() == first.count_unknown() == {"cat": 1, "dog": 1}


@pytest.mark.parametrize(
    ("name", "hints", "message"),
    [
        ("", {"images": Path()}, "--images does not apply to the format folders"),
        ("", {"separator": ";"}, "--separator does not apply to the format folders"),
        (
            "",
            {"format": "coco"},
            "in is not COCO instances: .* as one folder per label",
        ),
        ("list.csv", {"separator": ";"}, "--separator does not apply to the format one-hot"),
        (
            "list.csv",
            {"format": "list"},
            r"list\.csv is not a CSV of labels: .* a one-hot CSV",
        ),
        (
            "all.json",
            {"format": "labelstudio"},
            "not a Label Studio export: .* as COCO inst",
        ),
        ("all.json", {"separator": ";"}, "--separator does not apply to the format coco"),
        ("gone.json", {}, r"gone\.json: unreadable: No such file"),
        ("cats/1.png", {}, r"1\.png is neither a folder nor a"),
    ],
)
def test_option_that_does_not_apply_is_refused(
    folder: Path, tmp_path: Path, name: str, hints: dict[str, Any], message: str
) -> None:
    lists = {"list.csv": "file,cat,dog\ncats/1.png,1,0\n", "all.json": INSTANCES}
    source = write(folder / name, lists[name]) if name in lists else folder / name
    with pytest.raises(InputError, match=message):
        run_import(source, tmp_path / "raw.zip", **hints)
