from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from phototag.base.errors import InputError
from phototag.decoding.sources import read_file
from tests.importers.imports import paint, run_import, write

# Example of https://cocodataset.org/#format-data.
INSTANCES: dict[str, Any] = {
    "info": {"year": 2017, "version": "1.0", "description": "COCO 2017 Dataset"},
    "licenses": [{"id": 1, "name": "Attribution", "url": ""}],
    "images": [
        {"id": 397133, "width": 8, "height": 8, "file_name": "000000397133.png", "license": 1},
        {"id": 37777, "width": 8, "height": 8, "file_name": "000000037777.png", "license": 1},
        {"id": 252219, "width": 8, "height": 8, "file_name": "000000252219.png", "license": 1},
    ],
    "annotations": [
        {
            "id": 82445,
            "image_id": 397133,
            "category_id": 44,
            "segmentation": [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0]],
            "area": 8.0,
            "bbox": [1.0, 1.0, 4.0, 4.0],
            "iscrowd": 0,
        },
        {"id": 2, "image_id": 397133, "category_id": 44, "bbox": [0, 0, 2, 2], "iscrowd": 0},
        {"id": 3, "image_id": 397133, "category_id": 1, "bbox": [0, 0, 2, 2], "iscrowd": 0},
        {
            "id": 900100037777,
            "image_id": 37777,
            "category_id": 1,
            "segmentation": {"counts": [0, 4, 60], "size": [8, 8]},
            "iscrowd": 1,
        },
    ],
    "categories": [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 44, "name": "bottle", "supercategory": "kitchen"},
        {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
    ],
}
NAMES = [image["file_name"] for image in INSTANCES["images"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value, name in enumerate(NAMES):
        paint(tmp_path / "coco/val2017" / name, value)
    return tmp_path / "coco"


def test_image_carries_each_category_with_an_annotation(folder: Path, tmp_path: Path) -> None:
    source = write(folder / "annotations/instances_val2017.json", INSTANCES)
    found = run_import(source, tmp_path / "raw.zip")
    what = "COCO instances: 3 images, 4 annotations, 3 categories"
    assert found.summary.description == what
    assert found.summary.count_labels() == {"bottle": 1, "person": 2}
    assert found.summary.notes == ["skipped labels that no photo has: toothbrush"]
    assert found.unknown == {}
    # pycocotools reads the same categories.
    coco = COCO(str(source))
    for image in coco.loadImgs(coco.getImgIds()):
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        names = {coco.cats[annotation["category_id"]]["name"] for annotation in annotations}
        place = f"../val2017/{image['file_name']}"
        assert found.carried[place] == " ".join(sorted(names))
        assert found.ids[place] == str(image["id"])


@pytest.mark.parametrize(
    ("json", "photos"),
    [
        ("all.json", ""),
        ("all.json", "images"),
        ("labels.json", "data"),
        ("annotations/instances_default.json", "images"),
        ("annotations/instances_train.json", "images/train"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_photos_are_found_in_usual_folders(tmp_path: Path, json: str, photos: str) -> None:
    for value, name in enumerate(NAMES):
        paint(tmp_path / "in" / photos / name, value)
    source = write(tmp_path / "in" / json, INSTANCES)
    assert len(run_import(source, tmp_path / "raw.zip").summary.photos) == 3


def test_images_option_names_folder_of_photos(folder: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "elsewhere/x.json", INSTANCES)
    with pytest.raises(InputError, match=r"x\.json: none of 3 .*, such as 0000.*with --im"):
        run_import(source, tmp_path / "raw.zip")
    found = run_import(source, tmp_path / "raw.zip", images=folder / "val2017")
    assert found.carried["../coco/val2017/000000037777.png"] == "person"
    with pytest.raises(InputError, match=r"--images .*none is not a folder"):
        run_import(source, tmp_path / "again.zip", images=tmp_path / "none")


def list_photos(
    names: Sequence[str], categories: Sequence[str], annotations: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Return a file as Roboflow exports it: ids from 0, category 0 is the root of the others."""
    root = {"id": 0, "name": categories[0], "supercategory": "none"}
    rest = enumerate(categories[1:], start=1)
    return {
        "info": {"year": "2026", "version": "3", "description": "Exported from roboflow.com"},
        "licenses": [{"id": 1, "url": "https://example.org", "name": "CC BY 4.0"}],
        "categories": [
            root, *({"id": n, "name": name, "supercategory": categories[0]} for n, name in rest)
        ],
        "images": [
            {"id": n, "license": 1, "file_name": name, "height": 8, "width": 8}
            for n, name in enumerate(names)
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": [0, 0, 2, 2]}
            for n, (image, category) in enumerate(annotations)
        ],
    }  # fmt: skip


@pytest.mark.parametrize("place", ["train/_annotations.coco.json", "annotations/instances_{}.json"])
def test_lists_of_splits_are_joined(tmp_path: Path, place: str) -> None:
    """Read an export of Roboflow, whose root category has a name that no label can have."""
    annotations = {"train": [(0, 1), (0, 2), (1, 1)], "valid": [(0, 2)], "test": []}
    for split, pairs in annotations.items():
        names = [f"{split}-{number}.png" for number in range(2)]
        for value, name in enumerate(names):
            paint(tmp_path / "in" / split / name, value)
        content = list_photos(names, ["cats/dogs", "cat", "dog"], pairs)
        write(tmp_path / "in" / place.format(split).replace("train/", f"{split}/"), content)
    found = run_import(tmp_path / "in", tmp_path / "raw.zip")
    assert found.carried == {
        "train/train-0.png": "cat dog",
        "train/train-1.png": "cat",
        "valid/valid-0.png": "dog",
        "valid/valid-1.png": "",
        "test/test-0.png": "",
        "test/test-1.png": "",
    }
    assert found.unknown == {}
    assert found.summary.notes == ["skipped labels that no photo has: cats/dogs"]


def test_copies_made_by_roboflow_are_one_group(tmp_path: Path) -> None:
    names = [f"{stem}_jpg.rf.{value:032x}.png" for value, stem in enumerate("aab")]
    for split, photos in (("train", names[:1]), ("valid", names[1:])):
        for value, name in enumerate(photos):
            paint(tmp_path / "in" / split / name, value)
        content = list_photos(photos, ["cat", "cat"], [(0, 1)])
        write(tmp_path / "in" / split / "_annotations.coco.json", content)
    found = run_import(tmp_path / "in", tmp_path / "raw.zip")
    assert [photo.group for photo in found.summary.photos] == ["a_jpg", "a_jpg", "b_jpg"]
    assert "a_jpg" in read_file(tmp_path / "raw.zip", "sources.csv").decode()
    # The name of the root category may be the same as the name of another category.
    assert found.summary.count_labels() == {"cat": 2}


def test_labels_that_one_of_several_lists_lacks_are_unknown(tmp_path: Path) -> None:
    for value, name in enumerate(NAMES):
        paint(tmp_path / "in" / name, value)
    write(tmp_path / "in/train.csv", f"file,cat,dog\n{NAMES[0]},1,1\n{NAMES[1]},1,0\n")
    write(tmp_path / "in/val.csv", f"file,cat\n{NAMES[2]},1\n")
    found = run_import(tmp_path / "in", tmp_path / "raw.zip", format="one-hot")
    assert found.unknown == {NAMES[2]: "dog"}
    write(tmp_path / "in/val.csv", f"file,cat,dog\n{NAMES[2]},1,1\n{NAMES[1]},1,0\n")
    found = run_import(tmp_path / "in", tmp_path / "again.zip", format="one-hot")
    assert found.carried == {NAMES[0]: "cat dog", NAMES[1]: "cat", NAMES[2]: "cat dog"}
    write(tmp_path / "in/val.csv", f"file,cat,dog\n{NAMES[1]},1,1\n")
    with pytest.raises(
        InputError, match=r"val\.csv:2: .*777\.png is already listed in .*train\.csv:3, "
    ):
        run_import(tmp_path / "in", tmp_path / "third")


@pytest.mark.parametrize(
    "prefix",
    ["C:\\Users\\Ann\\val2017\\", "/home/ann/val2017/", "../val2017/", "./", "val2017\\", "a/b\\"],
)
@pytest.mark.parametrize("images", [None, "val2017"])
def test_paths_of_another_machine_are_found(
    folder: Path, tmp_path: Path, prefix: str, images: str | None
) -> None:
    content = deepcopy(INSTANCES)
    content["images"].reverse()
    for image in content["images"]:
        image["file_name"] = prefix + image["file_name"]
    content["images"][0]["file_name"] = prefix + "elsewhere.png"
    paint(folder / "val2017/elsewhere.png", 7)
    source = write(folder / "annotations/instances_val2017.json", content)
    hints = {"images": folder / images} if images else {}
    found = run_import(source, tmp_path / "raw.zip", **hints)
    assert found.carried["../val2017/000000037777.png"] == "person"
    assert found.carried["../val2017/elsewhere.png"] == ""


def test_one_file_with_other_labels_is_refused(folder: Path, tmp_path: Path) -> None:
    content = changed("images", 1, file_name=f"C:\\b\\{NAMES[0]}")
    content["images"][0]["file_name"] = f"C:\\a\\{NAMES[0]}"
    source = write(folder / "val2017.json", content)
    with pytest.raises(
        InputError, match=r"images\[1\]: .* is already listed in .*images\[0\], with other"
    ):
        run_import(source, tmp_path / "raw.zip")


def test_equal_records_of_one_photo_are_joined(folder: Path, tmp_path: Path) -> None:
    content = deepcopy(INSTANCES)
    # The same record again, and the same photo and labels with another id.
    content["images"] += [content["images"][0], content["images"][0] | {"id": 5}]
    content["categories"].append(content["categories"][0])
    content["annotations"] += [
        annotation | {"image_id": 5}
        for annotation in content["annotations"]
        if annotation["image_id"] == content["images"][0]["id"]
    ]
    source = write(folder / "val2017.json", content)
    found = run_import(source, tmp_path / "raw.zip")
    assert len(found.summary.photos) == 3
    assert found.summary.count_labels() == {"bottle": 1, "person": 2}
    assert found.summary.notes[-1].endswith("with the same labels: 2")


def test_number_of_missing_photos_is_reported(folder: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        (folder / "val2017" / name).unlink()
    source = write(folder / "val2017.json", INSTANCES)
    message = r"images\[0\]: .*397133\.png is missing, one of 2 missing photos: fix"
    with pytest.raises(InputError, match=message):
        run_import(source, tmp_path / "raw.zip")


def changed(group: str, index: int, **values: Any) -> dict[str, Any]:
    source = deepcopy(INSTANCES)
    source[group][index].update(values)
    return source


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"val2017\.json: unknown format; expected"),
        ('{"images": [}, "categories"', r"val2017\.json: not valid JSON: .* line 1 column 13"),
        ({"licenses": ["images", "categories"]}, r"json: images is missing; categories is"),
        (INSTANCES | {"images": {}}, r"json: images: input should be a valid array"),
        (INSTANCES | {"images": []}, r"json: annotations\[0\]: no .* has the id 397133"),
        (INSTANCES | {"images": [], "annotations": []}, r"json: no photo has a label"),
        (INSTANCES | {"annotations": []}, r"json: no photo has a label"),
        (INSTANCES | {"annotations": [{"image_id": 37777, "caption": "A man"}]},
         r"json: annotations\.0\.category_id is missing"),
        (INSTANCES | {"annotations": ["x"]}, r"json: annotations\.0: input should be an object"),
        (changed("annotations", 1, image_id=5), r"json: annotations\[1\]: no .* has the id 5"),
        (changed("annotations", 1, image_id="397133"), r"\[1\]: no .* has the id '397133'"),
        (changed("annotations", 2, category_id=2), r"\[2\]: no .* has the id 2: add it"),
        (changed("annotations", 2, category_id=1.5),
         r"annotations\.2\.category_id\.int: input should be a valid integer, not 1\.5"),
        (changed("images", 1, id=397133),
         r"json: images\[1\]: id 397133 is already used in \[0\]"),
        (changed("images", 1, file_name=NAMES[0]), r"images\[1\]: .* listed in .* images\[0\]"),
        (changed("images", 1, file_name="gone.png"), r"images\[1\]: .*gone\.png is missing"),
        (changed("images", 1, file_name=""), r"images\[1\]: no file name"),
        (changed("images", 1, file_name=7), r"images\.1\.file_name: input should be .*, not 7"),
        (changed("images", 1, file_name="../outside.png"), r"images\[1\]: .*outside\.png is mis"),
        (changed("categories", 1, id=1), r"categories\[1\]: id 1 is already used in \[0\]"),
        (changed("categories", 1, name="a/b"), r"categories\[1\]: label 'a/b' cannot be"),
        (changed("categories", 1, name=""), r"categories\[1\]: label '' cannot be"),
        (changed("categories", 1, name=None), r"categories\.1\.name: input should be .*, not None"),
    ],
)  # fmt: skip
def test_error_names_file_and_key(folder: Path, tmp_path: Path, content: Any, message: str) -> None:
    paint(folder / "outside.png", 9)
    source = write(folder / "val2017.json", content)
    with pytest.raises(InputError, match=message) as error:
        run_import(source, tmp_path / "raw.zip")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "raw.zip").exists()
