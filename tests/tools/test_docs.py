"""Tests of the generated pages of the docs site."""

from pathlib import Path

import pytest

from phototag.schema.params import Params
from tools.docs import rewrite_links
from tools.params_page import read_comments, render_params

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("source", "link", "rewritten"),
    [
        ("README.md", "[a](docs/team.md#a-dvc-remote)", "[a](team.md#a-dvc-remote)"),
        ("docs/team.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/team.md", "[a](../dvc.yaml)", "a (`dvc.yaml`)"),
        ("docs/reference/import.md", "[a](../team.md)", "[a](../team.md)"),
        ("docs/team.md", "[a](missing.md)", "[a](missing.md)"),
        ("docs/team.md", "`[a](../README.md)`", "`[a](../README.md)`"),
    ],
)
def test_links_point_at_pages_of_the_site(source: str, link: str, rewritten: str) -> None:
    assert rewrite_links(link, source) == rewritten


def test_comments_belong_to_the_key_on_their_line_or_to_the_next_one() -> None:
    text = (
        "# Header.\nlr: 1  # Learning\n       # rate.\ntrain:\n  # Decay.\n  ema: 0\n  loss: bce\n"
    )
    assert read_comments(text) == {"lr": "Learning rate.", "train.ema": "Decay."}


def test_params_page_has_every_key() -> None:
    page = render_params(ROOT)
    assert all(f"`{name}`" in page or f"## {name}" in page for name in Params.model_fields)
    assert r"| `train.loss` | `bce` \| `focal` \| `asymmetric` | `bce` | train |" in page
