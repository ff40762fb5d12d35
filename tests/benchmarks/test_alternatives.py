from pathlib import Path

import torch

from benchmarks.alternatives.__main__ import count_lines
from benchmarks.alternatives.network import build_network
from phototag.network.model import build_model
from phototag.schema.params import Params


def test_count_lines_ignores_comments_and_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text(
        '"""What it\nis."""\n\n# why\nimport os\n\n\ndef f():\n    """Do."""\n'
        '    a = """x\ny"""\n    return a\n'
    )
    assert count_lines(path) == 5  # import, def, a string of two lines, return


@torch.no_grad()
def test_all_libraries_train_the_same_network(shipped_params: Params) -> None:
    theirs = build_network(14)
    ours = build_model(shipped_params.model, 14, 128, [0.0] * 3, [1 / 255] * 3)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.copy_(its)
    images = torch.rand(2, 3, 128, 128)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)
