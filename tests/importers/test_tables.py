import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files, read_file
from tests.importers.imports import paint, run_import, write

ONE_HOT = "file,cat,Dog,sofa\na.png,1,0,\nb.png,true,FALSE,?\nc.png,0,Yes,no\nd.png,0.0,,1.0\n"


@pytest.fixture(autouse=True)
def photos(tmp_path: Path) -> None:
    for value, name in enumerate("abcd"):
        paint(tmp_path / f"{name}.png", value)


def test_one_hot_cells_are_yes_no_or_unknown(tmp_path: Path) -> None:
    found = run_import(write(tmp_path / "list.csv", ONE_HOT), tmp_path / "raw.zip")
    assert found.summary.description == "one-hot CSV: 4 rows"
    assert found.carried == {"a.png": "cat", "b.png": "cat", "c.png": "Dog", "d.png": "sofa"}
    assert found.unknown == {"a.png": "sofa", "b.png": "sofa", "d.png": "Dog"}
    assert found.summary.count_unknown() == {"Dog": 1, "sofa": 2}
    assert read_file(tmp_path / "raw.zip", "unknown/sofa.txt") == b"1\n2\n"
    names = [name for name in list_files(tmp_path / "raw.zip") if name.startswith("unknown/")]
    assert names == ["unknown/Dog.txt", "unknown/sofa.txt"]
    assert found.summary.notes == ["empty cells of labels, read as unknown labels: 2"]


def test_one_hot_written_by_pandas_is_read(tmp_path: Path) -> None:
    """Read an index without a column name, floats, and empty cells for NaN."""
    table = pd.DataFrame(
        {"image_path": ["a.png", "b.png", "c.png"], "cat": [1.0, 0.0, None], "dog": [0, 1, 1]}
    )
    table.to_csv(tmp_path / "list.csv")
    found = run_import(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert found.carried == {"a.png": "cat", "b.png": "dog", "c.png": "dog"}
    assert found.unknown == {"c.png": "cat"}
    assert set(found.ids.values()) == {""}
    assert found.summary.notes == ["empty cells of labels, read as unknown labels: 1"]


def test_id_and_group_columns_are_not_labels(tmp_path: Path) -> None:
    text = "id,file,width,cat,group,dog\n7,a.png,640,1,ann,0\n9,b.png,480,0,,1\n"
    found = run_import(write(tmp_path / "list.csv", text), tmp_path / "raw.zip")
    assert found.ids == {"a.png": "7", "b.png": "9"}
    assert found.summary.notes == ["skipped columns: width"]
    assert b"im1.png,a.png,ann,7," in read_file(tmp_path / "raw.zip", "sources.csv")


def test_label_without_photo_is_skipped_and_noted(tmp_path: Path) -> None:
    text = "file,cat,dog,sofa\na.png,1,0,0\nb.png,1,0,?\n"
    found = run_import(write(tmp_path / "list.csv", text), tmp_path / "raw.zip")
    assert found.summary.count_labels() == {"cat": 2}
    assert found.summary.count_unknown() == {}
    assert found.summary.notes == ["skipped labels that no photo has: dog, sofa"]


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["cat, red sofa", "", "cat"], None),
        (["cat;red sofa", "", "cat"], None),
        (["cat\nred sofa", "", "cat"], None),
        (["['cat', 'red sofa']", "[]", "cat"], None),
        (["[cat, red sofa]", "[ ]", "{'cat'}"], ";"),
        (["('cat', 'red sofa',)", "['']", "[cat]"], None),
        (["{'cat', 'red sofa'}", "set()", "cat"], None),
        (["cat | red sofa|", "", "cat"], None),
        (["cat/red sofa", "", "cat"], "/"),
        (["cat and red sofa", "", "cat"], " and "),
    ],
)
def test_tag_separator_is_found_in_cells(
    tmp_path: Path, cells: list[str], separator: str | None
) -> None:
    source = tmp_path / "list.csv"
    table = pd.DataFrame({"file": ["a.png", "b.png", "c.png"], "tags": cells})
    table.to_csv(source, index=False)
    found = run_import(source, tmp_path / "raw.zip", separator=separator)
    assert found.summary.description == "CSV of labels: 3 rows"
    assert found.carried == {"a.png": "cat red sofa", "b.png": "", "c.png": "cat"}
    assert found.summary.count_labels() == {"cat": 2, "red sofa": 1}
    empty = ["empty cells of labels, read as no label (write ? if they are unknown): 1"]
    assert found.summary.notes == (empty if "" in cells else [])
    unlabelled = ["photos without a label, read as having none of the labels: 1"]
    assert found.summary.describe_unlabelled() == unlabelled


@pytest.mark.parametrize("write_list", [str, json.dumps])
def test_lists_written_by_pandas_or_json_are_read(
    tmp_path: Path, write_list: Callable[[list[str]], str]
) -> None:
    lists = [["it's"], ["été, là"], [], ["3"]]
    table = pd.DataFrame({"file": ["a.png", "b.png", "c.png", "d.png"]})
    table["labels"] = [write_list(labels) for labels in lists]
    table.to_csv(tmp_path / "list.csv", index=False)
    found = run_import(tmp_path / "list.csv", tmp_path / "raw.zip")
    assert found.carried == {"a.png": "it's", "b.png": "été, là", "c.png": "", "d.png": "3"}


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "<NA>", "NULL"])
def test_missing_values_are_unknown_with_a_note(tmp_path: Path, word: str) -> None:
    """Read words that pandas reads as missing in each kind of table, also as a group."""
    rows = f"file,label,group\na.png,{word},ann\nb.png,cat;{word},{word}\nc.png,dog,{word}\n"
    found = run_import(write(tmp_path / "list.csv", rows), tmp_path / "raw.zip")
    assert found.carried == {"a.png": "", "b.png": "cat", "c.png": "dog"}
    assert found.unknown == {"a.png": "cat dog", "b.png": "dog"}
    assert found.summary.notes == [f"cells with {word!r}, read as unknown labels: 2"]
    assert [photo.group for photo in found.summary.photos] == ["ann", "", ""]
    rows = f"file,cat,dog\na.png,1,{word}\nb.png,{word},{word}\nc.png,0,1\n"
    found = run_import(write(tmp_path / "list.csv", rows), tmp_path / "again.zip")
    assert found.carried == {"a.png": "cat", "b.png": "", "c.png": "dog"}
    assert found.unknown == {"a.png": "dog", "b.png": "cat dog"}
    assert found.summary.notes == [f"cells with {word!r}, read as unknown labels: 3"]


def test_columns_of_splits_are_not_labels(tmp_path: Path) -> None:
    for columns in ("is_valid,cat,fold,dog", "train,cat,val,dog", "Unnamed: 0,cat,index,dog"):
        text = f"fname,{columns}\na.png,1,1,0,0\nb.png,0,0,1,1\n"
        source = write(tmp_path / "list.csv", text)
        assert run_import(source, tmp_path / columns).carried == {"a.png": "cat", "b.png": "dog"}
    text = "fname,is_valid,cat,fold,train\na.png,True,1,0,0\nb.png,False,0,1,1\n"
    found = run_import(write(tmp_path / "list.csv", text), tmp_path / "raw.zip")
    assert found.carried == {"a.png": "cat", "b.png": "train"}
    assert found.summary.notes == ["skipped columns: is_valid, fold"]
    text = "fname,labels,is_valid,fold\na.png,cat,True,0\nb.png,dog,False,1\n"
    found = run_import(write(tmp_path / "list.csv", text), tmp_path / "again.zip")
    assert found.carried == {"a.png": "cat", "b.png": "dog"}


def test_question_mark_makes_all_labels_unknown(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "file,labels\na.png,cat;dog\nb.png,?\nc.png,\n")
    found = run_import(source, tmp_path / "raw.zip")
    assert found.carried == {"a.png": "cat dog", "b.png": "", "c.png": ""}
    assert found.unknown == {"b.png": "cat dog"}


@pytest.mark.parametrize("column", ["keywords", "labels", "class"])
@pytest.mark.parametrize("mark", [" ", "#", "+", " & ", "\u3001"])
def test_labels_with_doubtful_marks_need_the_separator_option(
    tmp_path: Path, column: str, mark: str
) -> None:
    rows = f"fname,{column},is_valid\nb.png,cat,True\na.png,cat{mark}sofa,False\n"
    source = write(tmp_path / "list.csv", rows)
    asked = mark.strip() or mark
    message = f"csv:3: 'cat{mark}sofa' may be one label or several: pass --separator '{asked}' to"
    with pytest.raises(InputError, match=re.escape(message)):
        run_import(source, tmp_path / "raw.zip")
    found = run_import(source, tmp_path / "two", separator=asked)
    assert found.summary.count_labels() == {"cat": 2, "sofa": 1}
    found = run_import(source, tmp_path / "one", separator=";")
    assert found.summary.count_labels() == {"cat": 1, f"cat{mark}sofa": 1}


def test_captions_are_refused_unless_the_separator_is_given(tmp_path: Path) -> None:
    rows = 'file,tags\na.png,"A dog, brown, sits."\nb.png,A dog with a ball in a park\nc.png,\n'
    source = write(tmp_path / "list.csv", rows)
    with pytest.raises(InputError, match=r"csv:2: 'A dog, brown.* seems to be a caption: rename"):
        run_import(source, tmp_path / "raw.zip")
    assert len(run_import(source, tmp_path / "raw.zip", separator=";").summary.labels) == 2
    rows = "".join(
        f"{name}.png,a car of the make and model {n}\n"
        for name, n in zip("abcd", "1221", strict=True)
    )
    source = write(tmp_path / "list.csv", "file,label\n" + rows)
    with pytest.raises(InputError, match="may be one label or several"):
        run_import(source, tmp_path / "again.zip")


@pytest.mark.parametrize(
    "title",
    ["File Name", "file-name", "fname", "FileName", "Id", "image_id", "ImageID"],
)
def test_column_of_files_may_have_several_names(tmp_path: Path, title: str) -> None:
    source = write(tmp_path / "list.csv", f"{title},label\na.png,cat\n")
    assert run_import(source, tmp_path / "raw.zip").carried == {"a.png": "cat"}


@pytest.mark.parametrize("title", ["label", "class"])
def test_labels_may_be_numbers(tmp_path: Path, title: str) -> None:
    rows = "".join(f"{name}.png,{number}\n" for name, number in zip("abcd", "0112", strict=True))
    found = run_import(write(tmp_path / "list.csv", f"file,{title}\n{rows}"), tmp_path / "raw.zip")
    assert found.summary.count_labels() == {"0": 1, "1": 2, "2": 1}


def test_photos_in_the_folder_that_are_not_listed_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "list.csv", "file,label\na.png,cat\nb.png,dog\n")
    found = run_import(tmp_path, tmp_path / "out/raw", format="list")
    assert found.summary.notes == ["skipped photos that are not listed: 2, such as c.png"]


def test_photos_may_be_in_other_folder(tmp_path: Path) -> None:
    source = write(tmp_path / "lists/list.csv", ONE_HOT)
    found = run_import(source, tmp_path / "raw.zip", images=tmp_path)
    assert found.carried["../a.png"] == "cat"


@pytest.mark.parametrize(
    ("root", "hints"),
    [
        ("C:\\Users\\Ann\\photos\\", {}),
        ("\\\\server\\share\\", {}),
        ("/home/ann/", {}),
        ("file:///home/ann/", {}),
        ("https://photos.example/2024/", {}),
        ("~/photos/", {}),
        ("../photos/", {"images": ""}),
        ("D:\\", {"images": ""}),
    ],
)
def test_paths_of_another_machine_are_shortened(
    tmp_path: Path, root: str, hints: dict[str, str]
) -> None:
    folder = tmp_path / "lists" if hints else tmp_path
    paint(tmp_path / "sub/a.png", 7)  # another file with the name of a listed photo
    query = "?size=9" if "https" in root else ""
    rows = f"file,label\n{root}a.png,cat\n{root}sub/a.png,dog\n{root}b.png{query},\n"
    source = write(folder / "list.csv", rows)
    options = {option: tmp_path / value for option, value in hints.items()}
    found = run_import(source, tmp_path / "raw.zip", **options)
    up = "../" if hints else ""
    assert found.carried == {f"{up}a.png": "cat", f"{up}sub/a.png": "dog", f"{up}b.png": ""}


def test_extensions_are_completed(tmp_path: Path) -> None:
    paint(tmp_path / "e.png", 7)
    (tmp_path / "e.png").rename(tmp_path / "e.f.PNG")
    source = write(tmp_path / "list.csv", "fname,label\na,cat\ne.f,cat\nb,dog\n")
    assert sorted(run_import(source, tmp_path / "out/raw.zip").carried) == [
        "a.png", "b.png", "e.f.PNG"]  # fmt: skip
    paint(tmp_path / "a.jpg", 9)
    with pytest.raises(InputError, match=r"csv:2: .*a is missing: fix the name"):
        run_import(source, tmp_path / "again.zip")


def test_rows_of_one_photo_are_joined_if_they_are_equal(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    rows = "id,file,label,group\n1,a.png,cat;dog,ann\n2,b.png,dog,\n3,sub/../a.png,dog;cat,ann\n"
    found = run_import(write(tmp_path / "list.csv", rows), tmp_path / "raw.zip")
    assert found.carried == {"a.png": "cat dog", "b.png": "dog"}
    assert found.ids["a.png"] == "1"
    (note,) = found.summary.notes
    assert note == "skipped entries that repeat another entry with the same labels: 1"
    for row in ("3,a.png,dog,ann", "3,a.png,cat;dog,bob", "3,a.png,?,ann"):
        source = write(tmp_path / "list.csv", f"id,file,label,group\n1,a.png,cat;dog,ann\n{row}\n")
        with pytest.raises(InputError, match=r"csv:3: .*a\.png is already listed in .*csv:2, with"):
            run_import(source, tmp_path / "again.zip")


def test_zip_next_to_a_table_must_be_unpacked(tmp_path: Path) -> None:
    source = write(tmp_path / "metadata.csv", "file_name,label\nin/x.png,cat\n")
    (tmp_path / "photos.zip").write_bytes(b"")
    for path in (source, tmp_path):
        with pytest.raises(
            InputError, match=r"csv:2: .*in.x\.png is .*: unpack .*photos\.zip first"
        ):
            run_import(path, tmp_path / "raw.zip")


def test_table_of_labels_and_of_zeros_and_ones_is_ambiguous(tmp_path: Path) -> None:
    rows = "file,labels,cat,dog\na.png,car,1,0\nb.png,bus,0,1\n"
    source = write(tmp_path / "list.csv", rows)
    with pytest.raises(InputError, match=r"choose with --as list or --as one-hot"):
        run_import(source, tmp_path / "raw.zip")
    for kind, labels in (("list", ["bus", "car"]), ("one-hot", ["cat", "dog"])):
        found = run_import(source, tmp_path / kind, format=kind)
        assert list(found.summary.count_labels()) == labels


def test_first_column_of_labels_is_read(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "file,tags,label,indoor,labels\na.png,x,cat,1,y\n")
    found = run_import(source, tmp_path / "raw.zip")
    assert found.carried == {"a.png": "cat"}
    assert found.summary.notes == ["skipped columns: tags, indoor, labels"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # one-hot
        ("file,cat,dog\na.png,1,0\nb.png,2,0\nc.png,0,1\n", r"csv:3: '2' in column 'cat'; wr"),
        ("file,Cat,dog\na.png,1,0\nb.png,-1,0\nc.png,0,1\n", r"csv:3: '-1' in column 'Cat'"),
        ("file,cat,dog\na.png,1,0\nb.png,cat,0\nc.png,0,1\n", r"csv:3: 'cat' in column 'cat'"),
        ("file,cat,dog\na.png,1,0\na.png,0,1\n", r"csv:3: .*a\.png is already listed in .*:2"),
        ("file,cat,dog\na.png,1,0\nx.png,0,1\n", r"csv:3: .*x\.png is missing: f"),
        ("file,cat\na.png,1\nx.png,1\nc.png,1\ny.png,1\nz,1\n",
         r"csv:3: .*x\.png is missing, one of 3 missing photos: fix the name, or"),
        ("file,cat,dog\na.png,1,0\n,0,1\n", r"csv:3: no file name"),
        ("file,cat,dog\na.png,1,0\nb.png,1\n", r"csv:3: the row has 2 cells, but the header has 3"),
        ("file,cat,dog\na.png,1,0\nb.png,1,0,1\n", r"csv:3: the row has 4 cells"),
        ("file,cat,CAT\na.png,1,0\n", r"csv:1: two columns are named 'cat'"),
        ("file,a/b,dog\na.png,1,0\n", r"csv:1: label 'a/b' cannot be a file name"),
        ("file,cat,mode\na.png,1,0\n", r"csv:1: .*label 'mode' is a manifest column's name"),
        ("Cat,dog\n1,0\n", r"csv:1: no column 'file': write the names"),
        ("path,image,cat,dog\na.png,a.png,1,0\n", r"csv:1: columns path, image may .* 'file'"),
        ("file,cat,dog\na.png,0,0\nb.png,0,?\n", r"csv: no photo has a label"),
        ("ImageID,LabelName,Confidence\na,cat,1\nb,cat,0\n", r"csv:1: no column of labels"),
        ("file,cat,dog\n", r"csv:1: no column of labels: name a"),
        ("file,caption\na.png,A cat\n", r"csv:1: no column of labels"),
        # labels
        ('file,tags\na.png,"x, y"\nb.png,x;y\n',
         r"csv: labels in the column 'tags' may be separated by ',' or by ';': choose with --sep"),
        ("file,tags\na.png,\nb.png,?\n", r"csv: no photo has a label"),
        ("file,tags\na.png,cat\nb.png,\"['cat', 'x\"\n", r"csv:3: .* should be a list of label"),
        ("file,tags\na.png,['cat' 'dog']\n", r"csv:2: .* should be a list of labels"),
        ("file,tags\na.png,{'cat': 1}\n", r"csv:2: .* should be a list of labels"),
        ("file,tags\na.png,[['cat']]\n", r"csv:2: .* should be a list of labels"),
        ('file,tags\na.png,"[0, 1, 0]"\n', r"csv:2: .* should be a list of label"),
        ("file,tags\na.png,array(['cat'])\n", r"csv:2: .* should be a list of labels"),
        ("file,tags\na.png," + "[" * 65000 + "\n", r"csv:2: .* should be a list of labels"),
        ("file,tags\na.png," + "[" * 65000 + "]" * 65000 + "\n", r"csv:2: .* should be a list"),
        ('{"images": 1', r"csv:1: no column 'file'"),
    ],
)  # fmt: skip
def test_error_names_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    source = write(tmp_path / "list.csv", content)
    with pytest.raises(InputError, match=message) as error:
        run_import(source, tmp_path / "raw.zip")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "raw.zip").exists()
