"""Damaged, unusual and hostile files through the resize stage."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from phototag.base.errors import escape_control
from stages import resize
from tests.conftest import SHIPPED_PARAMS
from tests.decoding.corpus import SYSTEM_FILES, Case, make_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Case]]:
    """Folder of the project after the stage, and the cases."""
    folder = tmp_path_factory.mktemp("corpus")
    cases = make_corpus(folder / "raw")
    values = yaml.safe_load(SHIPPED_PARAMS.read_text(encoding="utf-8"))
    values["data"]["raw"] = "raw"
    values["resize"]["max_rejected"] = 1
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        resize.main()
    return folder, cases


@pytest.fixture(scope="module")
def manifest(corpus: tuple[Path, list[Case]]) -> pd.DataFrame:
    text = {"reason": str, "duplicate_group": str, "phash": str}
    return pd.read_csv(corpus[0] / "data/manifest.csv", keep_default_na=False, dtype=text)


def test_every_file_gets_one_row_with_the_expected_decision(
    corpus: tuple[Path, list[Case]], manifest: pd.DataFrame
) -> None:
    _, cases = corpus
    assert len(cases) >= 60
    rows = {row["file"]: row for row in manifest.to_dict("records")}
    assert len(rows) == len(manifest) == len(cases)
    wrong = []
    for case in cases:
        row = rows["images/" + escape_control(case.name)]
        kinds = [part.split(":")[0] for part in row["reason"].split("; ") if part]
        expected = len(kinds) == len(case.kinds) and all(
            kind.startswith(start) for kind, start in zip(kinds, case.kinds, strict=True)
        )
        if row["decision"] != case.decision or not expected:
            wrong.append(f"{case} -> {row['decision']}: {row['reason']}")
    assert not wrong, "\n".join(wrong)


def test_array_holds_all_photos_that_are_not_rejected(
    corpus: tuple[Path, list[Case]], manifest: pd.DataFrame
) -> None:
    images = np.load(corpus[0] / "data/images.npy", mmap_mode="r")
    assert images.shape == ((manifest["decision"] != "rejected").sum(), 128, 128, 3)
    assert (manifest["sha256"].str.len() == 64).sum() >= len(images)


def test_link_to_a_photo_is_its_duplicate(manifest: pd.DataFrame) -> None:
    groups = manifest.set_index("file")["duplicate_group"]
    assert groups["images/im60.jpg"] == groups["images/im101.jpg"] != ""


def test_report_names_all_problems(corpus: tuple[Path, list[Case]], manifest: pd.DataFrame) -> None:
    folder = corpus[0] / "reports/resize"
    problems = pd.read_csv(folder / "problems.csv", keep_default_na=False)
    rejected = manifest[manifest["decision"] == "rejected"]
    assert sorted(problems.loc[problems["line"] == 0, "file"]) == sorted(rejected["file"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    for kind in {part.split(":")[0] for r in manifest["reason"] for part in r.split("; ") if part}:
        assert f"<h3>{kind} (" in page
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert sum(summary["decisions"].values()) == summary["files"] == len(manifest)
    assert summary["system_files"] == len(SYSTEM_FILES)
    assert f"{len(SYSTEM_FILES)} system files were ignored" in page
