import pytest
from dvc.utils.hydra import to_hydra_overrides

from phototag.experiments.dvc_tools import to_hydra


@pytest.mark.parametrize(
    "value",
    [
        "data/mine.zip",
        "/home/me/my photos (old), {2}=[x].zip",
        "it's.zip",
        [{"out": 4, "kernel": 3}, {"out": 8}],
        False,
        0.0002,
    ],
)
def test_to_hydra_is_read_back_unchanged(value: object) -> None:
    (override,) = to_hydra_overrides([f"key={to_hydra(value)}"])
    assert override.value() == value
