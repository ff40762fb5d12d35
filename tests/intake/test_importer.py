import csv
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phototag.base.errors import InputError
from phototag.intake.importer import import_photos
from phototag.intake.labels import read_labels
from phototag.intake.raw import find_layout, read_file


def photo(path: Path, value: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path)
    return path.read_bytes()


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def read_back(destination: Path) -> tuple[list[str], dict[str, list[int]]]:
    layout = find_layout(destination)
    labels = read_labels(destination, layout.annotations, layout.images)
    return layout.images, {label: column.tolist() for label, column in labels.targets.items()}


@pytest.fixture
def course(tmp_path: Path) -> Path:
    for number in (1, 2, 10):
        photo(tmp_path / f"course/train/images/im{number}.jpg", number)
    text(tmp_path / "course/train/annotations/cat.txt", "2\n10\n")
    text(tmp_path / "course/train/annotations/dog.txt", "")
    return tmp_path / "course"


@pytest.mark.parametrize("destination", ["new/raw.zip", "new/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_course_data_from_folder_or_zip(
    course: Path, tmp_path: Path, destination: str, packed: bool
) -> None:
    source = course
    if packed:
        source = tmp_path / "course.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in sorted(course.rglob("*.*")):
                archive.write(path, path.relative_to(course))
    summary = import_photos(source, tmp_path / destination)
    assert (summary.num_images, summary.label_counts) == (3, {"cat": 2, "dog": 0})
    images, labels = read_back(tmp_path / destination)
    assert images == ["images/im1.jpg", "images/im10.jpg", "images/im2.jpg"]
    assert labels == {"cat": [0, 1, 1], "dog": [0, 0, 0]}
    original = (course / "train/images/im10.jpg").read_bytes()
    assert read_file(tmp_path / destination, "images/im10.jpg") == original
    assert [p.name for p in (tmp_path / "new").iterdir()] == [Path(destination).name]


def test_zip_is_the_same_bytes_each_time(course: Path, tmp_path: Path) -> None:
    import_photos(course, tmp_path / "a.zip")
    os.utime(course / "train/images/im1.jpg", (0, 0))
    import_photos(course, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_nothing_is_overwritten(course: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw.zip").write_text("mine")
    for name in ("raw", "raw.zip"):
        with pytest.raises(InputError, match="exists: remove it"):
            import_photos(course, tmp_path / name)
    assert (tmp_path / "raw.zip").read_text() == "mine"


def test_a_failed_import_leaves_nothing(course: Path, tmp_path: Path) -> None:
    (course / "train/images/im7.jpg").symlink_to(photo_outside(tmp_path))
    for name in ("out/raw", "out/raw.zip"):
        with pytest.raises(InputError, match="link out of the folder"):
            import_photos(course, tmp_path / name)
    assert list((tmp_path / "out").iterdir()) == []


def photo_outside(folder: Path) -> Path:
    photo(folder / "outside.jpg", 9)
    return folder / "outside.jpg"


def test_mirflickr_takes_strict_labels_unless_told(tmp_path: Path) -> None:
    for number in (1, 2):
        photo(tmp_path / f"mirflickr/im{number}.jpg", number)
    text(tmp_path / "mirflickr/doc/README.txt", "The MIRFLICKR collection\n")
    text(tmp_path / "labels/sea.txt", "1\n2\n25000\n")
    text(tmp_path / "labels/sea_r1.txt", "2\n25000\n")
    text(tmp_path / "labels/README.txt", "See the paper.\n")
    summary = import_photos(tmp_path / "mirflickr", tmp_path / "a", tmp_path / "labels")
    assert read_back(tmp_path / "a")[1] == {"sea": [0, 1]}
    notes = " ".join(summary.notes)
    assert "README.txt was passed over" in notes
    assert "left out sea;" in notes
    assert "1 of 2 images are not in" in notes
    import_photos(tmp_path / "mirflickr", tmp_path / "b", tmp_path / "labels", potential=True)
    assert read_back(tmp_path / "b")[1] == {"sea": [1, 1]}


def test_csv_numbers_the_photos_and_keeps_the_way_back(tmp_path: Path) -> None:
    for index, name in enumerate(("p/eins.JPG", "zwei.png", "p/drei ö.jpg")):
        photo(tmp_path / name, index)
    rows = "\ufefffile,label,group\np/eins.JPG,cat;dog,ann\nzwei.png,,\np/drei ö.jpg,dog,bo\n"
    text(tmp_path / "list.csv", rows)
    summary = import_photos(tmp_path / "list.csv", tmp_path / "raw")
    assert summary.label_counts == {"cat": 1, "dog": 2}
    images, labels = read_back(tmp_path / "raw")
    assert images == ["images/im1.jpg", "images/im2.png", "images/im3.jpg"]
    assert labels == {"cat": [1, 0, 0], "dog": [1, 0, 1]}
    with (tmp_path / "raw/sources.csv").open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [row["source"] for row in listed] == ["p/eins.JPG", "zwei.png", "p/drei ö.jpg"]
    assert [row["group"] for row in listed] == ["ann", "", "bo"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("photo,label\na.png,x\n", "csv:1: no column 'file'"),
        ("file,tag\na.png,x\n", "csv:1: no column 'label'"),
        ("file,label\nb.png,x\n", r"csv:2: .*b\.png is missing"),
        ("file,label\na.png,x\na.png,y\n", "csv:3: a.png stands on line 2 already"),
        ("file,label\n,x\n", "csv:2: no file"),
        ("file,label\na.png,x/y\n", "csv:2: the label 'x/y' cannot name a file"),
        ("file,label\na.png,\n", "has no label in any row"),
    ],
)
def test_csv_errors_name_the_row(tmp_path: Path, content: str, message: str) -> None:
    photo(tmp_path / "a.png", 1)
    text(tmp_path / "list.csv", content)
    with pytest.raises(InputError, match=message):
        import_photos(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert not (tmp_path / "raw.zip").exists()


def test_sources_without_photos_or_labels(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photo"):
        import_photos(tmp_path / "empty", tmp_path / "raw")
    photo(tmp_path / "bare/im1.jpg", 1)
    with pytest.raises(InputError, match="no label file"):
        import_photos(tmp_path / "bare", tmp_path / "raw")


@pytest.mark.photos
def test_real_photos(tmp_path: Path) -> None:
    folder = os.environ.get("PHOTOTAG_PHOTOS")
    if not folder:
        pytest.skip("PHOTOTAG_PHOTOS names no folder of real photos")
    summary = import_photos(Path(folder, "mirflickr-2500.zip"), tmp_path / "raw.zip")
    assert (summary.num_images, len(summary.label_counts)) == (2500, 14)
    columns = read_back(tmp_path / "raw.zip")[1]
    assert np.sum(list(columns.values())) == sum(summary.label_counts.values())
