from pathlib import Path

import pandas as pd
import pytest

from benchmarks.claims.claims import Claim, Experiments
from benchmarks.claims.collection import RESULTS
from benchmarks.claims.page import write_results
from phototag.base.errors import InputError
from tests.benchmarks.claims.files import write_runs


def test_page_shows_which_claims_hold(tmp_path: Path) -> None:
    """The first variant gains 0.145 over the baseline; a quarter is 0.036, a fifth 0.029."""
    losses: dict[str, tuple[float, ...]] = {
        "a": (0.2, 0.21),
        "b": (0.25, 0.26),
        "c": (0.2, 0.209),
        "d": (0.22, 0.23),
    }
    losses |= {"e": (0.33, 0.34), "f": (0.15, 0.16), "g": (0.3,)}
    write_runs(
        tmp_path,
        {(name, seed): loss for name, own in losses.items() for seed, loss in enumerate(own)},
    )
    variants: dict[str, dict[str, object]] = {name: {} for name in losses}

    def claim(**expect: str) -> Claim:
        given = {"statement": "So it is.", "variants": ["a", *expect], "expect": expect}
        given["note"] = "Only two seeds."
        return Claim.model_validate(given)

    claims = {
        "true": claim(b="worse"),
        "half": claim(b="worse", c="worse"),
        "false": claim(b="better"),
        "slight": claim(d="similar"),
        "barely": claim(e="barely learns", f="better"),
        "barely-not": claim(b="barely learns"),
        "begun": claim(b="worse", g="worse"),
        "open": claim(g="worse"),
    }
    no_expectation = Claim.model_validate({"statement": "It is 0.2.", "variants": ["a", "b"]})
    experiments = Experiments(
        photos={},
        variants=variants,
        claims=claims | {"plain": no_expectation},
        note="Much was cut.",
    )
    write_results(tmp_path, experiments)
    page = (tmp_path / "docs/research/results.md").read_text()
    assert page.index("Much was cut.") < page.index("| true")
    assert page.count("> So it is.\n\nOnly two seeds.\n\n| variant") == len(claims)
    answers = {
        cells[0].removeprefix("| "): cells[-1]
        for cells in (line.removesuffix(" |").split(" | ") for line in page.splitlines())
        if cells[1:2] == ["few"]
    }
    assert answers == {
        "true": "**holds**. worse: b",
        "half": "holds in part. worse: b; similar: c",
        "false": "**does not hold**. worse: b",
        "slight": "**holds**. slightly worse: d",
        "barely": "**holds**. barely learns: e; better: f",
        "barely-not": "**does not hold**. worse: b",
        "begun": "holds for the variants that ran. worse: b; not judged because only one seed ran: "
        "g +0.1000",
        "open": "not judged because only one seed ran: g +0.1000",
        "plain": "a: val loss 0.59 of the baseline's, micro F1 at 0.5 on val 0.30; "
        "b: val loss 0.73 of the baseline's, micro F1 at 0.5 on val 0.30",
    }
    assert "| begun | few | 1-2 |" in page
    assert "| b | 1.5 M | 2 | 1 (1-1) of 2 | 0.2550 (0.2500-0.2600) | 0.729 | +0.0500 worse" in page
    assert (
        "0.745 (0.740-0.750) Δ -0.050 | 0.245 (0.240-0.250) Δ -0.050 | 0.345 (0.340-0.350) | 0.300"
        in page
    )
    assert (
        "python -m benchmarks.claims run true --photos few.zip --variant b --seed 0\n"
        "dvc plots diff few-a-s0 few-b-s0\n" in page
    )
    for name in ("true-few", "half-few", "false-few", "beside-report"):
        assert f"(results/{name}.png)" in page
        assert (tmp_path / RESULTS / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_commands_name_seeds_that_ran(tmp_path: Path) -> None:
    write_runs(tmp_path, {("a", 0): 0.2, ("a", 3): 0.2, ("b", 3): 0.25, ("c", 7): 0.25})
    claims = {
        name: Claim.model_validate({"statement": "So it is.", "variants": ["a", name]})
        for name in "bc"
    }
    variants: dict[str, dict[str, object]] = {"a": {}, "b": {}, "c": {}}
    write_results(tmp_path, Experiments(photos={}, variants=variants, claims=claims))
    page = (tmp_path / "docs/research/results.md").read_text()
    assert "--variant b --seed 3\ndvc plots diff few-a-s3 few-b-s3\n" in page
    # Nothing to compare: no seed ran both.
    assert "--variant c --seed 7\n```" in page


def test_page_has_sections_of_measured_tables(tmp_path: Path) -> None:
    write_runs(tmp_path, {("a", 0): 0.2, ("b", 0): 0.25, ("c", 0): 0.2, ("d", 0): 0.2})
    variants = {"a": {}, "b": {"lr": 0.1}, "c": {"lr": 0.1, "epochs": 4}, "d": {"lr": 0.2}}
    claim = Claim.model_validate({"statement": "So it is.", "variants": list(variants)})
    experiments = Experiments(photos={}, variants=variants, claims={"one": claim})
    write_results(tmp_path, experiments)
    page = (tmp_path / "docs/research/results.md").read_text()
    assert "## Time" not in page
    assert "training time" not in page
    tables = {
        "networks": [
            {"variant": variant, "images_per_second": 400.4 / time, "time": time}
            for variant, time in (("a", 1.0), ("b", 2.0))
        ],
        "alternatives": [
            {"side": side, "seconds": seconds, "fastest": 1.5, "slowest": 30.0, "f1_micro": 0.25}
            | {"lines": lines, "photos": "few", "epochs": 3, "total": 3 * seconds, "val_loss": 0.2}
            for side, seconds, lines in (("other", 20.0, 70), ("phototag", 2.0, 1))
        ],
    }
    for name, rows in tables.items():
        table = pd.DataFrame(rows).assign(processor="2 CPU cores")
        table.to_csv(tmp_path / RESULTS / f"{name}.csv", index=False)
    counts = {"photos_on_test": 10, "decisions": 200, "missing_labels": 3}
    counts |= {"duplicates_in_all": 4, "duplicates_on_test": 1}
    scores = {"f1_micro_all": 0.4, "f1_micro_clean": 0.5, "f1_macro_all": 0.2}
    noise = [
        {"photos": "few", "variant": "report", "judge": judge, "seed": seed, "label_errors": errors}
        | counts
        | scores
        | {"f1_macro_clean": clean}
        for judge, seed, errors, clean in (("a", 0, 8, 0.3), ("a", 1, 12, 0.2), ("b", 0, 20, 0.3))
    ]
    noise.append(noise[0] | {"variant": "a", "judge": "report"})
    pd.DataFrame(noise).to_csv(tmp_path / RESULTS / "label_noise.csv", index=False)
    write_results(tmp_path, experiments)
    page = (tmp_path / "docs/research/results.md").read_text()
    cells = [line.split(" | ") for line in page.splitlines() if " M | " in line]
    # c trains as b does; of d nothing is known.
    assert [row[-1] for row in cells] == ["1.00 |", "2.00 |", "2.00 |", " |"]
    assert "2 CPU cores.\n\n```bash\npython -m benchmarks.networks a b\n```" in page
    assert "| b | 200 | 2.00 |" in page
    assert "| other | 20.0 | 1.5-30.0 | 10.00 | 3 | 60 | 0.2000 | 0.250 | 70 |" in page
    assert "python -m benchmarks.label_noise few/a\n" in page
    assert (
        "| few | report | a | 2 | 10 of 200 (5.0%) | 3 | 4, 1 | 0.400 (0.400-0.400) "
        "| +0.100 (+0.100 to +0.100) | 0.200 (0.200-0.200) | +0.050 (+0.000 to +0.100) |" in page
    )
    assert (
        "| few | report | b | 1 | 20 of 200 (10.0%) | 3 | 4, 1 | 0.400 | +0.100 | 0.200 | +0.100 |"
        in page
    )


def test_page_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no runs"):
        write_results(tmp_path, Experiments(photos={}, variants={}, claims={}))
