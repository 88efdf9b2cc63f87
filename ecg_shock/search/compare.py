"""Compare ways of training in pairs: variants of a base setting, with the same folds and seeds.

A comparison is a TOML file:

``name``, ``folds``, ``seeds``, ``rule``
    The rule of decision is text. It is written before the comparison runs, and printed with its results.
``[decision]``
    The numbers of the rule, see `Decision`.
``levels``
    Balanced accuracies. How much training each variant needs until it reaches them is compared.
``[base.data]``, ``[base.network]``, ``[base.training]``
    The base setting, with the fields of `DataConfig`, `CnnSpec` and `TrainingConfig`.
``[[variants]]``
    ``name``, and the fields that differ, in ``[variants.data]`` and so on: from the base, or from the variant that
    ``after`` names.

Each training has a folder of its own with its result. A run that was interrupted continues where it stopped. Only
validation patients are evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError, model_validator

from ecg_shock.data.datasets import DataConfig
from ecg_shock.files import explain, read_toml
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.preprocessing import FS
from ecg_shock.training.trainer import TrainingConfig

BASE = "base"
DURATIONS_S = (5.0, 2.0)  # of the validation windows


@dataclass(frozen=True)
class Settings:
    """What a training is made with; the fold and the seed come from the comparison."""

    data: DataConfig
    network: CnnSpec
    training: TrainingConfig


class Changes(BaseModel):
    """Fields of each section that are set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: dict[str, Any] = {}
    network: dict[str, Any] = {}
    training: dict[str, Any] = {}


class Variant(Changes):
    """A variant: its name, the variant that it changes (the base if not given), and the changes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    after: str = BASE


class Decision(BaseModel):
    """How each fold chooses one of the variants, on its own validation patients.

    The score of a training is the mean of its balanced accuracies over the window lengths of `DURATIONS_S`, and that of
    a variant is the mean over its seeds.

    Parameters
    ----------
    tolerance : float
        Among the variants whose score is at most this much below the highest, the first one of the file is chosen.
    min_other_hospitals : float
        Variants with a lower specificity on other hospitals are chosen only if no variant reaches this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(default=0.0, ge=0, lt=1)
    min_other_hospitals: float = Field(default=0.0, ge=0, le=1)


class TrainingComparison(BaseModel):
    """A comparison, as its file describes it.

    Parameters
    ----------
    name : str
        Name of the comparison and of its run folder.
    folds, seeds : tuple of int
        Every variant is trained on each of these folds with each of these seeds.
    rule : str
        The rule of decision, in words.
    decision : Decision
        Its numbers.
    levels : tuple of float
        Balanced accuracies on the validation windows of an epoch, from 0 to 1, each above the one before. For each, the
        results state how much training the base and the variants need to reach it.
    other_hospitals : tuple of str
        Databases that measure the specificity of every variant on other hospitals: a fifth of their patients, who never
        train, as for `DataConfig.extra`.
    base : Changes
        The base setting.
    variants : tuple of Variant
        The variants, each after the one that it changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    folds: tuple[NonNegativeInt, ...] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1)
    rule: str = Field(min_length=1)
    decision: Decision = Decision()
    levels: tuple[Annotated[float, Field(gt=0.5, le=1)], ...] = ()
    other_hospitals: tuple[str, ...] = ()
    base: Changes
    variants: tuple[Variant, ...] = ()

    @model_validator(mode="after")
    def _has_valid_variants(self) -> TrainingComparison:
        if list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels are {list(self.levels)!r}; each must be above the one before")
        known = [BASE]
        for variant in self.variants:
            if variant.name in known:
                raise ValueError(f"two variants have the name {variant.name!r}")
            if variant.after not in known:
                raise ValueError(
                    f"variant {variant.name!r} comes after {variant.after!r}, which is not before it; "
                    f"name one of {', '.join(known)}"
                )
            known.append(variant.name)
        for name in known:
            self.settings(name)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the settings that are compared, the base first."""
        return (BASE, *(variant.name for variant in self.variants))

    def settings(self, name: str) -> Settings:
        """Return the complete settings of the base or a variant."""
        sections = self.sections(name)

        def read(section: str, model: Any, **more: Any) -> Any:
            try:
                return TypeAdapter(model).validate_python({**sections[section], **more})
            except ValidationError as error:
                raise ValueError(f"[{section}] of {name!r}: {'; '.join(explain(error))}") from error

        data = read("data", DataConfig)
        network = read("network", CnnSpec, input_samples=round(data.window_s * FS))
        return Settings(data, network, read("training", TrainingConfig))

    def sections(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the fields that are set for the base or a variant, by section."""
        if name == BASE:
            return self.base.model_dump()
        variant = next(variant for variant in self.variants if variant.name == name)
        return _merge(self.sections(variant.after), variant.model_dump(include={"data", "network", "training"}))


def read_comparison(path: Path) -> TrainingComparison:
    """Read a comparison, and check every value.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not TOML, or a key or value is not allowed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no comparison {path}; give the path of a TOML file")
    content = read_toml(path)
    try:
        return TrainingComparison.model_validate(content)
    except ValidationError as error:
        errors = "\n".join(f"  {line}" for line in explain(error, TrainingComparison))
        raise ValueError(f"{path} cannot be used:\n{errors}") from error


def _merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with changes."""
    merged = dict(content)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = _merge(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged
