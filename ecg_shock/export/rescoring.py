"""How an exported model does on the validation subset, compared with the bundle, and how far it may differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.data.datasets import shockable
from ecg_shock.data.windows import WindowSet
from ecg_shock.export.runtimes import Runtime
from ecg_shock.models.bundle import logit_of
from ecg_shock.models.cnn import import_keras

if TYPE_CHECKING:
    import keras

# Of the shipped model's 5,423 validation windows int8 changes 2 decisions, and neither Se nor Sp; float changes none,
# and rounding alone changes probabilities by 4e-7: `ecg-shock export`.
INT8_LIMITS = {"flipped": 0.005, "sensitivity_change": 0.005, "specificity_change": 0.005}
FLOAT_LIMITS = {"flipped": 0.0, "probability_difference": 1e-5}
BATCH = 256  # windows at once through the bundle's network


@dataclass(frozen=True)
class Flip:
    """A window on which the exported model decides otherwise than the bundle.

    Parameters
    ----------
    database, record : str
        The recording.
    start_s : float
        Where the window begins, in seconds.
    aha_class : str
        Its rhythm.
    probability, exported : float
        Probability of *shockable* by the bundle, and by the exported model.
    """

    database: str
    record: str
    start_s: float
    aha_class: str
    probability: float
    exported: float


@dataclass(frozen=True)
class Rescoring:
    """What the bundle and its export say of the same windows.

    Parameters
    ----------
    windows, patients : int
        The whole validation subset.
    sensitivity, specificity : float
        Of the bundle, 0 to 1.
    exported_sensitivity, exported_specificity : float
        Of the exported model.
    largest_probability_difference, largest_logit_difference : float
        Of any window.
    flips : tuple of Flip
        Decisions that differ.
    """

    windows: int
    patients: int
    sensitivity: float
    specificity: float
    exported_sensitivity: float
    exported_specificity: float
    largest_probability_difference: float
    largest_logit_difference: float
    flips: tuple[Flip, ...]


def rescore(
    original: keras.Model,
    exported: Runtime,
    windows: WindowSet,
    threshold: float,
    *,
    on_window: Callable[[], Any] | None = None,
) -> Rescoring:
    """Compare an exported model with the network that it was made of.

    `original` is the bundle's network, `windows` are of clear classes, and a shock is advised from the probability
    `threshold` on; the exported model decides by its logit. `on_window` is called after each window.

    Raises
    ------
    ValueError
        If there are no shockable or no nonshockable windows.
    """
    truth = shockable(windows)
    if truth.all() or not truth.any():
        raise ValueError(
            f"the validation subset has {int(truth.sum())} shockable and {int((~truth).sum())} nonshockable windows; "
            "both are needed to score an export. Train on a split whose validation subset has both."
        )
    keras = import_keras()
    last = original.layers[-1]
    weights, bias = (np.asarray(value, dtype=np.float64) for value in last.get_weights())
    both = keras.Model(original.input, [last.input, last.output])
    batches = [both(windows.ecg[i : i + BATCH, :, np.newaxis]) for i in range(0, len(windows), BATCH)]
    features, output = (
        np.concatenate([np.asarray(value) for value in values]) for values in zip(*batches, strict=True)
    )
    logit, probability = (features.astype(np.float64) @ weights + bias)[:, 0], output[:, 0].astype(np.float64)
    shock = probability >= threshold

    stored_logit, stored_probability = exported.run(windows.ecg, on_window)
    exported_logit = exported.logit.read(stored_logit)
    exported_probability = exported.probability.read(stored_probability)
    exported_shock = exported_logit >= logit_of(threshold)
    flips = tuple(
        Flip(
            database=str(windows.database[i]),
            record=str(windows.record[i]),
            start_s=float(windows.start_s[i]),
            aha_class=str(windows.aha_class[i]),
            probability=float(probability[i]),
            exported=float(exported_probability[i]),
        )
        for i in np.flatnonzero(shock != exported_shock)
    )
    return Rescoring(
        windows=len(windows),
        patients=len(set(windows.patient.tolist())),
        sensitivity=float(shock[truth].mean()),
        specificity=float((~shock)[~truth].mean()),
        exported_sensitivity=float(exported_shock[truth].mean()),
        exported_specificity=float((~exported_shock)[~truth].mean()),
        largest_probability_difference=float(np.abs(exported_probability - probability).max()),
        largest_logit_difference=float(np.abs(exported_logit - logit).max()),
        flips=flips,
    )


def limits_of(to: str) -> dict[str, float]:
    """Return how far an export may differ: proportions of windows, or differences of probability."""
    return INT8_LIMITS if to.endswith("-int8") else FLOAT_LIMITS


def check_tolerance(rescoring: Rescoring, to: str) -> None:
    """Raise ValueError if an export to this format differs from its bundle by more than it may."""
    flipped = len(rescoring.flips) / rescoring.windows
    sensitivity_change = rescoring.exported_sensitivity - rescoring.sensitivity
    specificity_change = rescoring.exported_specificity - rescoring.specificity
    difference = rescoring.largest_probability_difference
    found = {
        "flipped": (flipped, f"{100 * flipped:.2f} % of the decisions changed"),
        "sensitivity_change": (abs(sensitivity_change), f"Se changed by {100 * sensitivity_change:+.2f} points"),
        "specificity_change": (abs(specificity_change), f"Sp changed by {100 * specificity_change:+.2f} points"),
        "probability_difference": (difference, f"probabilities differ by up to {difference:.2g}"),
    }
    faults = []
    for name, limit in limits_of(to).items():
        value, text = found[name]
        if not value <= limit:  # NaN does not pass
            allowed = f"{limit:g}" if name == "probability_difference" else f"{100 * limit:g} %"
            faults.append(f"{text}, allowed are {allowed}")
    if faults:
        remedy = "Use the versions of pyproject.toml, or write the bundle again"
        if to.endswith("-int8"):
            remedy = (
                f"Export to {to.removesuffix('-int8')}, or train with more patients or another network: this one lies "
                "too near its threshold"
            )
        raise ValueError(
            f"the export to {to} is not the bundle's model: {'; '.join(faults)} (validation subset, "
            f"{rescoring.windows:,} windows of {rescoring.patients} patients). Nothing was written. {remedy}."
        )
