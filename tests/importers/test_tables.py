from pathlib import Path

import pandas as pd
import pytest

from phototag.base.errors import InputError
from tests.importers.imports import paint, run_import, write

ONE_HOT = "file,cat,Dog,sofa\na.png,1,0,\nb.png,true,FALSE,?\nc.png,0,Yes,no\nd.png,0.0,,1.0\n"


@pytest.fixture(autouse=True)
def photos(tmp_path: Path) -> None:
    for value, name in enumerate("abcd"):
        paint(tmp_path / f"{name}.png", value)


def test_one_hot_cells_say_yes_no_or_not_known(tmp_path: Path) -> None:
    found = run_import(write(tmp_path / "list.csv", ONE_HOT), tmp_path / "raw")
    assert found.summary.what == "one-hot CSV: 4 rows"
    assert found.carried == {"a.png": "cat", "b.png": "cat", "c.png": "Dog", "d.png": "sofa"}
    assert found.unknown == {"a.png": "sofa", "b.png": "sofa", "d.png": "Dog"}
    assert found.summary.unknown_counts == {"Dog": 1, "sofa": 2}
    assert (tmp_path / "raw/unknown/sofa.txt").read_text() == "1\n2\n"
    assert sorted(path.name for path in (tmp_path / "raw/unknown").iterdir()) == [
        "Dog.txt",
        "sofa.txt",
    ]


def test_one_hot_as_pandas_writes_it(tmp_path: Path) -> None:
    """With its index in a column without a name, floats, and empty cells for NaN."""
    table = pd.DataFrame(
        {"image_path": ["a.png", "b.png", "c.png"], "cat": [1.0, 0.0, None], "dog": [0, 1, 1]}
    )
    table.to_csv(tmp_path / "list.csv")
    found = run_import(tmp_path / "list.csv", tmp_path / "raw")
    assert found.carried == {"a.png": "cat", "b.png": "dog", "c.png": "dog"}
    assert found.unknown == {"c.png": "cat"}
    assert found.summary.notes == []


def test_ids_groups_and_other_columns_stay_what_they_are(tmp_path: Path) -> None:
    text = "id,file,width,cat,group,dog\n7,a.png,640,1,ann,0\n9,b.png,480,0,,1\n"
    found = run_import(write(tmp_path / "list.csv", text), tmp_path / "raw")
    assert found.ids == {"a.png": "7", "b.png": "9"}
    assert found.summary.notes == ["columns passed over: width"]
    assert "im1.png,a.png,ann,7\n" in (tmp_path / "raw/sources.csv").read_text()


def test_a_label_that_nobody_carries_is_left_out_and_told(tmp_path: Path) -> None:
    text = "file,cat,dog,sofa\na.png,1,0,0\nb.png,1,0,?\n"
    found = run_import(write(tmp_path / "list.csv", text), tmp_path / "raw")
    assert found.summary.label_counts == {"cat": 2}
    assert found.summary.unknown_counts == {}
    assert found.summary.notes == ["2 labels that no photo carries: dog, sofa"]


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["cat, red sofa", "", "cat"], None),
        (["cat;red sofa", "", "cat"], None),
        (["cat | red sofa|", "", "cat"], None),
        (["cat/red sofa", "", "cat"], "/"),
        (["cat and red sofa", "", "cat"], " and "),
    ],
)
def test_tags_are_separated_as_their_cells_show(
    tmp_path: Path, cells: list[str], separator: str | None
) -> None:
    rows = "".join(f'{name}.png,"{cell}"\n' for name, cell in zip("abc", cells, strict=True))
    source = write(tmp_path / "list.csv", "file,tags\n" + rows)
    found = run_import(source, tmp_path / "raw", separator=separator)
    assert found.summary.what == "tags CSV: 3 rows"
    assert found.carried == {"a.png": "cat red sofa", "b.png": "", "c.png": "cat"}
    assert found.summary.label_counts == {"cat": 2, "red sofa": 1}


def test_tags_separated_by_spaces_are_for_the_user_to_tell(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "filename,keywords\na.png,cat sofa\nb.png,cat\n")
    message = r"csv:2: 'cat sofa' may be 2 tags or one: say --separator ' ' or --separator ';'"
    with pytest.raises(InputError, match=message):
        run_import(source, tmp_path / "raw")
    found = run_import(source, tmp_path / "two", separator=" ")
    assert found.summary.label_counts == {"cat": 2, "sofa": 1}
    found = run_import(source, tmp_path / "one", separator=";")
    assert found.summary.label_counts == {"cat": 1, "cat sofa": 1}


def test_a_question_mark_in_a_cell_of_labels_leaves_them_all_open(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "file,labels\na.png,cat;dog\nb.png,?\nc.png,\n")
    found = run_import(source, tmp_path / "raw")
    assert found.carried == {"a.png": "cat dog", "b.png": "", "c.png": ""}
    assert found.unknown == {"b.png": "cat dog"}


def test_a_list_takes_another_separator(tmp_path: Path) -> None:
    source = write(tmp_path / "list.csv", "file,label\na.png,cat dog\n")
    assert run_import(source, tmp_path / "a").summary.label_counts == {"cat dog": 1}
    found = run_import(source, tmp_path / "b", separator=" ")
    assert found.summary.label_counts == {"cat": 1, "dog": 1}


@pytest.mark.parametrize("title", ["label", "class"])
def test_labels_may_be_numbers(tmp_path: Path, title: str) -> None:
    rows = "".join(f"{name}.png,{number}\n" for name, number in zip("abcd", "0112", strict=True))
    found = run_import(write(tmp_path / "list.csv", f"file,{title}\n{rows}"), tmp_path / "raw")
    assert found.summary.label_counts == {"0": 1, "1": 2, "2": 1}


def test_photos_may_lie_in_another_folder(tmp_path: Path) -> None:
    source = write(tmp_path / "lists/list.csv", ONE_HOT)
    found = run_import(source, tmp_path / "raw", images=tmp_path)
    assert found.carried["../a.png"] == "cat"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("file,label\na.png,1\nb.png,0\n", ["list", "one-hot"]),
        ("file,tags\na.png,1\nb.png,0\n", ["tags", "one-hot"]),
        ("file,labels,cat,dog\na.png,car,1,0\nb.png,bus,0,1\n", ["list", "one-hot"]),
        ("file,tags,cat,dog\na.png,car,1,0\nb.png,bus,0,1\n", ["tags", "one-hot"]),
    ],
)
def test_what_may_be_two_things_is_refused_with_both(
    tmp_path: Path, text: str, kinds: list[str]
) -> None:
    source = write(tmp_path / "list.csv", text)
    options = " or ".join(f"--as {kind}" for kind in kinds)
    with pytest.raises(InputError, match=rf"csv can be read as a .* CSV: say which with {options}"):
        run_import(source, tmp_path / "raw")
    counts = [
        run_import(source, tmp_path / kind, format=kind).summary.label_counts for kind in kinds
    ]
    assert counts[0] != counts[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # Of 0 and 1.
        ("file,cat,dog\na.png,1,0\nb.png,2,0\nc.png,0,1\n", r"csv:3: '2' in the column 'cat'; wr"),
        ("file,Cat,dog\na.png,1,0\nb.png,-1,0\nc.png,0,1\n", r"csv:3: '-1' in the column 'Cat'"),
        ("file,cat,dog\na.png,1,0\nb.png,cat,0\nc.png,0,1\n", r"csv:3: 'cat' in the column 'cat'"),
        ("file,cat,dog\na.png,1,0\na.png,0,1\n", r"csv:3: a\.png stands on line 2 already"),
        ("file,cat,dog\na.png,1,0\nx.png,0,1\n", r"csv:3: .*x\.png is missing"),
        ("file,cat,dog\na.png,1,0\n,0,1\n", r"csv:3: no file"),
        ("file,cat,dog\na.png,1,0\nb.png,1\n", r"csv:3: no cell of the column 'dog'$"),
        ("file,cat,dog\na.png,1,0\nb.png,1,0,1\n", r"csv:3: 4 cells where .* 3 columns; take out"),
        ("file,cat,CAT\na.png,1,0\n", r"csv:1: the column 'cat' stands twice"),
        ("file,a/b,dog\na.png,1,0\n", r"csv:1: the label 'a/b' cannot name a file"),
        ("file,cat,mode\na.png,1,0\n", r"csv:1: the label 'mode' is a manifest column's name"),
        ("cat,dog\n1,0\n", r"csv:1: no column 'file'"),
        ("path,image,cat,dog\na.png,a.png,1,0\n", r"csv:1: path, image may name .* them 'file'"),
        ("file,cat,dog\na.png,0,0\nb.png,0,?\n", r"csv: no photo carries a label"),
        ("file,cat,dog\n", r"csv:1: no column 'label', none of tags and none of 0 and 1"),
        ("file,a,b\na.png,x,y\n", r"csv:1: no column 'label', none of tags"),
        # Of tags.
        ('file,tags\na.png,"x, y"\nb.png,x;y\n',
         r"csv:3: tags such as 'x;y' may be .* ',' or by ';': say by which with --separator"),
        ("file,tags,keywords\na.png,x,y\n", r"csv:1: the columns tags, keywords all hold tags"),
        ("file,tags\na.png,x,y\n", r"csv:2: 3 cells .* separated by semicolons: a\.png,x;y$"),
        ("file,tags\na.png\n", r"csv:2: no cell of the column 'tags'.* is written a\.png,$"),
        ("file,tags\nx.png,x\n", r"csv:2: .*x\.png is missing"),
        ("file,tags\na.png,x\na.png,y\n", r"csv:3: a\.png stands on line 2 already"),
        ("file,tags\na.png,\nb.png,?\n", r"csv: no photo carries a label"),
        ("file,tags\na.png,tags12\n", r"csv:2: the label 'tags12' cannot name a file"),
        ("file,tags\na.png,x;file\n", r"csv:2: the label 'file' is a manifest column's name"),
        ("file,tags\n,x\n", r"csv:2: no file"),
        ('file,tags\na.png,"x\n', r"csv:2: .*a quotation mark is missing"),
        ('{"images": 1', r"csv: no whole JSON"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    source = write(tmp_path / "list.csv", content)
    with pytest.raises(InputError, match=message) as told:
        run_import(source, tmp_path / "raw.zip")
    assert len(str(told.value).splitlines()) == 1
    assert not (tmp_path / "raw.zip").exists()
