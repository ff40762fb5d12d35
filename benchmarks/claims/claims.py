"""The claims in experiments.yaml, and the runs that test the claims."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from phototag.base.errors import InputError
from phototag.base.keys import flatten
from phototag.base.params import ParamGroup, read_values, validate_params
from phototag.experiments.workspaces import SYNTHETIC
from phototag.tracking.recipes import FILE as RECIPES
from phototag.tracking.recipes import read_recipes

FILE = Path(__file__).with_name("experiments.yaml")
SYNTHETIC_NAME = "synthetic"  # name of the synthetic dataset in the names of runs
REFERENCE = "report"  # name of the variant with the report's network
Expectation = Literal["better", "worse", "similar", "barely learns"]


class Claim(BaseModel):
    """One claim of the report, and the variants that test the claim.

    Attributes:
        statement: The claim in one sentence.
        variants: Names of the variants; each is compared with the first one.
        expect: Variant -> result of the comparison with the first variant, as the report states it.
        judged_by: Metric for the comparison: val_loss, or val_mAP if a variant minimizes a loss
            other than plain cross entropy.
        note: Remarks shown on the results page.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    statement: str
    variants: Annotated[tuple[str, ...], Field(min_length=1)]
    expect: dict[str, Expectation] = {}
    judged_by: Literal["val_loss", "val_mAP"] = "val_loss"
    note: str = ""


class Experiments(ParamGroup):
    """The content of experiments.yaml.

    Attributes:
        base: Params that all variants override, read from `base` in recipes.yaml.
        photos: Name of a dataset -> params for this dataset.
        variants: Name of a variant -> params that differ from `base`.
        claims: Name of a claim -> claim.
        note: Remarks about all claims, shown on the results page.
    """

    base: dict[str, Any] = Field(default_factory=dict)
    photos: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    claims: dict[str, Claim]
    note: str = ""

    @model_validator(mode="after")
    def _check_names(self) -> "Experiments":
        for name, claim in self.claims.items():
            for variant in claim.variants:
                if variant not in self.variants:
                    raise ValueError(f"claim {name!r} lists the unknown variant {variant!r}")
            for variant in claim.expect:
                if variant not in claim.variants:
                    raise ValueError(f"claim {name!r} expects {variant!r}: add it to variants")
        return self


@dataclass(frozen=True)
class Run:
    """One run of a variant on a dataset with one seed.

    Attributes:
        photos: Name of the dataset.
        variant: Name of the variant.
        seed: Seed of the split, the initial weights and the augmentation.
        overrides: Dotted key in params.yaml -> value.
    """

    photos: str
    variant: str
    seed: int
    overrides: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of both the DVC experiment and the MLflow run."""
        return f"{self.photos}-{self.variant}-s{self.seed}"


def read_experiments(path: Path = FILE) -> Experiments:
    """Read and validate experiments.yaml, and `base` in recipes.yaml.

    Raises:
        InputError: A file is missing or invalid, or a key or name in it is unknown.
    """
    base = read_recipes(FILE.parents[2] / RECIPES).base
    return validate_params(Experiments, {"base": base} | read_values(path), str(path))


def describe_claims(experiments: Experiments) -> str:
    """Return two lines per claim: name and statement, and the list of variants."""
    width = max(map(len, experiments.claims))
    return "\n".join(
        f"{name:<{width}}  {claim.statement}\n{'':<{width}}  {', '.join(claim.variants)}"
        for name, claim in experiments.claims.items()
    )


def plan_runs(
    experiments: Experiments,
    claims: Sequence[str],
    photos: Path | None,
    variants: Sequence[str],
    seeds: Iterable[int],
    raw: str = str(SYNTHETIC),
) -> list[Run]:
    """List the runs that test some claims, ordered by seed, without duplicate variants.

    Args:
        experiments: Experiments returned by `read_experiments`.
        claims: Names of claims in experiments.yaml.
        photos: Zip or folder of photos (default: `raw`).
        variants: Names of the variants to run; empty for all variants of the claims.
        seeds: Seeds; each variant is run once with each seed.
        raw: Value of `data.raw` in params.yaml.

    Raises:
        InputError: A claim, a variant or the photos do not exist.
    """
    for claim in claims:
        if claim not in experiments.claims:
            raise InputError(
                f"{FILE.name} has no claim {claim!r}: choose {', '.join(experiments.claims)}"
            )
    known = list(dict.fromkeys(v for c in claims for v in experiments.claims[c].variants))
    for variant in variants:
        if variant not in known:
            raise InputError(
                f"{', '.join(claims)}: no variant {variant!r}: choose {', '.join(known)}"
            )
    if photos and not photos.exists():
        raise InputError(f"--photos: {photos} does not exist: pass a zip or folder of photos")
    name = name_photos(str(photos or raw))
    data = {"data": {"raw": str(photos.resolve())}} if photos else {}
    runs = []
    for seed in seeds:
        for variant in known:
            if variant in (variants or known):
                own = experiments.photos.get(name, {}), experiments.variants[variant]
                overrides = {"seed": seed}
                for given in (experiments.base, data, *own):
                    overrides |= flatten(given)
                runs.append(Run(name, variant, seed, overrides))
    return runs


def name_photos(raw: str) -> str:
    """Return the name of a dataset, which is the first part of the names of its runs."""
    return SYNTHETIC_NAME if Path(raw) == SYNTHETIC else Path(raw).stem
