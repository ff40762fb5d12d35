"""The claims of experiments.yaml, and the runs that try them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from phototag.base.errors import InputError
from phototag.base.files import read_source
from phototag.base.keys import flatten

FILE = Path("experiments.yaml")
SAMPLE, DRAWN = Path("data/sample"), "drawn"  # the photos that the repository draws, their name
REFERENCE = "report"  # the variant that is the report's network
Expectation = Literal["better", "worse", "similar", "barely learns"]


class Claim(BaseModel):
    """One thing that the report says, and the variants that try it.

    Attributes:
        says: The claim in a sentence.
        variants: The first is what the others are compared with.
        expect: Variant -> what the report says of it beside the first.
        judged_by: What verdicts compare: val_loss, or val_mAP where a variant's loss is another
            one than plain cross entropy, from which it moves away on purpose.
        note: What a reader of the results should know besides.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    says: str
    variants: Annotated[tuple[str, ...], Field(min_length=1)]
    expect: dict[str, Expectation] = {}
    judged_by: Literal["val_loss", "val_mAP"] = "val_loss"
    note: str = ""


class Recipe(BaseModel):
    """A variant that people start from.

    Attributes:
        says: What it is, in a sentence.
        model_extra: Dotted key of params.yaml -> value, that go with it besides the variant's.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    says: str


class Experiments(BaseModel):
    """All of experiments.yaml.

    Attributes:
        base: Params that all variants start from.
        recipes: Name of a variant -> what it is.
        photos: Name of a set of photos -> params that go with it.
        variants: Name -> params that differ from the base.
        claims: Name -> claim.
        note: What holds for all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: dict[str, Any] = {}
    recipes: dict[str, Recipe] = {}
    photos: dict[str, dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    claims: dict[str, Claim]
    note: str = ""

    @model_validator(mode="after")
    def _know_all_names(self) -> "Experiments":
        for name in self.recipes:
            if name not in self.variants:
                raise ValueError(f"recipe {name!r} is no variant")
        for name, claim in self.claims.items():
            for variant in claim.variants:
                if variant not in self.variants:
                    raise ValueError(f"claim {name!r} names {variant!r}, which is no variant")
            for variant in claim.expect:
                if variant not in claim.variants:
                    raise ValueError(f"claim {name!r} expects {variant!r}, but does not run it")
        return self


@dataclass(frozen=True)
class Run:
    """One experiment.

    Attributes:
        photos: Name of the set of photos.
        variant: Of experiments.yaml.
        seed: Of split, first weights and all that is drawn in training.
        overrides: Dotted key of params.yaml -> value.
    """

    photos: str
    variant: str
    seed: int
    overrides: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the DVC experiment and of the MLflow run."""
        return f"{self.photos}-{self.variant}-s{self.seed}"


def read_experiments(path: Path = FILE) -> Experiments:
    """Read and check experiments.yaml.

    Raises:
        InputError: The file is missing, not UTF-8 or no YAML, or something in it is unknown.
    """
    try:
        return Experiments.model_validate(yaml.safe_load(read_source(path)))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    except ValidationError as error:
        told = error.errors()[0]
        key = ".".join(map(str, told["loc"])) or "the file"
        raise InputError(f"{path}: {key}: {told['msg'].removeprefix('Value error, ')}") from None


def describe_claims(experiments: Experiments) -> str:
    """Tell what each claim says, and its variants."""
    width = max(map(len, experiments.claims))
    return "\n".join(
        f"{name:<{width}}  {claim.says}\n{'':<{width}}  {', '.join(claim.variants)}"
        for name, claim in experiments.claims.items()
    )


def plan_runs(
    experiments: Experiments,
    claims: Sequence[str],
    photos: Path | None,
    variants: Sequence[str],
    seeds: Iterable[int],
    raw: str = str(SAMPLE),
) -> list[Run]:
    """List the runs of some claims: seed by seed, each variant once.

    Args:
        experiments: Of `read_experiments`.
        claims: Their names.
        photos: A zip or folder; None takes what params.yaml names.
        variants: Only these; empty takes all of the claims'.
        seeds: One run each.
        raw: What params.yaml names.

    Raises:
        InputError: There is no claim, variant or file of that name.
    """
    for claim in claims:
        if claim not in experiments.claims:
            raise InputError(f"{FILE} has no {claim!r}; it has {', '.join(experiments.claims)}")
    known = list(dict.fromkeys(v for c in claims for v in experiments.claims[c].variants))
    for variant in variants:
        if variant not in known:
            raise InputError(f"{', '.join(claims)}: no variant {variant!r}, but {', '.join(known)}")
    if photos and not photos.exists():
        raise InputError(f"{photos}: there are no photos there")
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
    """Return what the runs on a zip or folder of photos are named by."""
    return DRAWN if Path(raw) == SAMPLE else Path(raw).stem
