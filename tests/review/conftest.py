from pathlib import Path

import pytest

from phototag.review.evidence import Evidence, read_evidence
from tests.reviews import make_review


@pytest.fixture
def project(tmp_path: Path, packed: Path) -> Path:
    return make_review(tmp_path / "project", packed)


@pytest.fixture
def evidence(project: Path) -> Evidence:
    return read_evidence(project)
