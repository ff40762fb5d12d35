"""The commands of `phototag label`, run in a project with two imports."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.base.params import read_values
from phototag.cli import typer_app
from phototag.verification.imports import read_dataset
from phototag.verification.label_edits import LabelEdits, read_edits
from tests.conftest import SHIPPED_PARAMS
from tests.verification.test_imports import digest, write_import

EDITS = SHIPPED_PARAMS.parent / "data/labels.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    first = [(f"p{number}.jpg", f"{number}", True) for number in range(4)]
    write_import(tmp_path / "data/raw/1.zip", first, {"puppy": {0: 1}, "cat": {1: 1, 2: 1}})
    second = [(f"q{number}.jpg", f"{number}", True) for number in (4, 5)]
    write_import(tmp_path / "data/raw/2.zip", second, {"dog": {0: 1}, "cat": {1: 1}})
    params = SHIPPED_PARAMS.read_text().replace("raw: data/sample", "raw: data/raw")
    (tmp_path / "params.yaml").write_text(params)
    shutil.copy(EDITS, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")  # commands also run in subfolders
    return tmp_path


def run(*arguments: str) -> str:
    """Run `phototag label` and return its output; raise the error of a failed command."""
    result = CliRunner().invoke(typer_app, ["label", *arguments])
    if result.exception:
        raise result.exception
    return result.stdout


def read(project: Path) -> LabelEdits:
    return read_edits(project / "data/labels.yaml")


def make(**keys: Any) -> LabelEdits:
    return LabelEdits.model_validate(keys)


def test_labels_are_listed_with_counts_edits_and_answers(project: Path) -> None:
    with (project / "data/corrections.csv").open("w", newline="") as file:
        header = ["file", "sha256", "label", "answer", "old", "who", "when", "ranking"]
        row = ["p3.jpg", digest("3"), "puppy", "yes", "no", "ann", "2025-01-01", "errors"]
        csv.writer(file).writerows([header, row])
    assert run() == (
        "label  yes  no  unknown\n"
        "cat      3   3        0\n"
        "dog      1   1        4\n"
        "puppy    2   2        2\n"
        "\n"
        "data/labels.yaml contains no edits\n"
    )
    run("merge", "puppy", "dog")
    run("imply", "dog", "animal")
    run("absent", "animal")
    assert run() == (
        "label   yes  no  unknown\n"
        "animal    3   3        0\n"
        "cat       3   3        0\n"
        "dog       3   3        0\n"
        "\n"
        "edits in data/labels.yaml:\n"
        "  rename puppy: dog  (2 photos)\n"
        "  imply dog: animal  (3 photos)\n"
        "  absent animal  (3 photos)\n"
    )


def test_commands_write_edits_and_keep_comments(project: Path) -> None:
    path = project / "data/labels.yaml"
    shipped = path.read_text()
    output = run("rename", "puppy", "whelp")
    assert output == (
        "data/labels.yaml:\n"
        "+rename:\n"
        "+  puppy: whelp\n"
        "\n"
        "puppy: 1 yes, 3 no, 2 unknown -> no label\n"
        "whelp: no label -> 1 yes, 3 no, 2 unknown\n"
        "\n"
        "To undo the edit, revert these lines.\n"
        "Next: dvc repro\n"
    )
    assert path.read_text() == f"{shipped}\nrename:\n  puppy: whelp\n"
    path.write_text(path.read_text().replace("puppy: whelp", "puppy: whelp  # young dog"))
    run("rename", "whelp", "2024")
    run("imply", "2024", "no")
    run("absent", "no")
    run("drop", "cat")
    assert path.read_text() == (
        f"{shipped}\nrename:\n  puppy: whelp  # young dog\n  whelp: 2024\n"
        "imply:\n  2024: [no]\nabsent: [no]\ndrop: [cat]\n"
    )
    assert read(project) == make(
        rename={"puppy": "whelp", "whelp": "2024"},
        imply={"2024": ["no"]},
        absent=["no"],
        drop=["cat"],
    )
    assert run("absent", "no").startswith("Nothing to change")
    assert path.read_text().count("absent") == shipped.count("absent") + 1


def test_renamed_label_is_renamed_in_the_other_edits_and_in_data_labels(project: Path) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("labels: []", "labels: [cat, dog, puppy]"))
    run("imply", "puppy", "dog")
    run("imply", "cat", "animal")
    run("imply", "dog", "animal")
    run("absent", "puppy")
    assert "learned only if data.labels" in run("imply", "puppy", "young")
    output = run("merge", "puppy", "cat", "dog")
    assert "+  labels: [dog]" in output
    assert read_values(params)["data"]["labels"] == ["dog"]
    assert read(project) == make(
        rename={"puppy": "dog", "cat": "dog"},
        imply={"dog": ["animal", "young"]},
        absent=["dog"],
    )
    run("rename", "animal", "beast")
    run("merge", "dog", "young")
    assert read(project).rename == {
        "puppy": "dog",
        "cat": "dog",
        "animal": "beast",
        "dog": "young",
    }
    assert read(project).imply == {"young": ("beast",)}
    (project / "data/labels.yaml").write_text("rename: {cat: young}")
    with pytest.raises(InputError, match=r"data\.labels lists only 'young'"):
        run("drop", "young")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rename pupy dog", r"no label 'pupy' \(did you mean puppy\?\)"),
        ("rename CAT kitten", r"no label 'CAT' \(did you mean cat\?\)"),
        ("rename puppy dog", "label 'dog' exists: .* run `phototag label merge`"),
        ("rename puppy puppy", "label 'puppy' exists"),
        ("rename puppy a:b", "the new name: label 'a:b' cannot be a file name"),
        ("rename puppy sha256", "the new name: the label 'sha256' is a manifest column's name"),
        ("rename puppy Dog", "'Dog' and the label 'dog' differ only in case"),
        ("rename kitten fox", "renames 'kitten' to 'feline': pass this name"),
        ("rename feline kitten", "renames 'kitten' to 'feline': .* remove the line to undo"),
        ("rename puppy owl", "drops 'owl': remove the line to undo"),
        ("merge puppy whelp", "nothing to merge: 'whelp' is a new label"),
        ("merge puppy puppy", "nothing to merge"),
        ("merge animal puppy", "no label file lists 'animal', so that it cannot be merged"),
        ("merge puppy bird pet", "no label 'bird'"),
        ("drop owl", "drops 'owl'"),
        ("drop animal", "`imply` names 'animal': remove it there first"),
        ("imply animal dog", "imply: dog -> animal -> dog is a circle"),
        ("imply dog dog", "imply: dog -> dog is a circle"),
        ("imply zebra animal", "no label 'zebra'"),
        ("absent zebra", "no label 'zebra'"),
    ],
)
def test_nonsense_is_refused_and_the_file_is_not_changed(
    project: Path, arguments: str, message: str
) -> None:
    write_import(
        project / "data/raw/3.zip", [("r.jpg", "8", True)], {"kitten": {0: 1}, "owl": {0: 1}}
    )
    path = project / "data/labels.yaml"
    path.write_text("rename: {kitten: feline}\nimply: {dog: [animal]}\ndrop: [owl]\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        run(*arguments.split())
    assert path.read_bytes() == before
    assert [file.name for file in (project / "data").glob("*.tmp.*")] == []


def test_file_is_created_and_a_broken_file_is_not_overwritten(project: Path) -> None:
    path = project / "data/labels.yaml"
    path.unlink()
    run("drop", "cat")
    assert path.read_text() == "drop: [cat]\n"
    path.write_text("drop: [cat]\ndrop: [dog]\n")
    with pytest.raises(InputError, match=r"labels.yaml:2: the key 'drop' is listed twice"):
        run("drop", "puppy")
    assert path.read_text() == "drop: [cat]\ndrop: [dog]\n"


def test_answers_to_photos_of_unknown_content_are_reported(project: Path) -> None:
    """Zips of earlier versions have no hashes; before `resize`, answers cannot be matched."""
    for number in (1, 2):
        write_import(
            project / f"data/raw/{number}.zip", [("p.jpg", f"{number}", True)], {"cat": {}}, False
        )
    (project / "data/corrections.csv").write_text(
        "file,sha256,label,answer,old,who,when,ranking\np.jpg,a,cat,yes,no,ann,2025-01-01,errors\n"
    )
    assert "cat      0   2        0\n" in run()
    assert run().endswith("not counted before `dvc repro`: 1\n")
    # The manifest contains the hashes and the decisions.
    names = read_dataset(project / "data/raw").name_photos()
    rows = zip(names, ["kept", "rejected"], ["a", ""], strict=True)
    with (project / "data/manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "decision", "sha256"), *rows])
    assert run() == (
        "label  yes  no  unknown\ncat      1   0        0\n\ndata/labels.yaml contains no edits\n"
    )


def test_missing_photos_are_explained(project: Path) -> None:
    shutil.rmtree(project / "data/raw")
    with pytest.raises(InputError, match=r"data\.raw: data/raw is missing: run `dvc pull`"):
        run()
