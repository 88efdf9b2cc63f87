"""Compare an exported model with its bundle on the validation subset, and check the difference against limits."""

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

# For the model of the package and its 5,423 validation windows, int8 changes 2 decisions; float changes no decision,
# and changes probabilities by at most 4e-7.
INT8_LIMITS = {"flipped": 0.005, "sensitivity_change": 0.005, "specificity_change": 0.005}
FLOAT_LIMITS = {"flipped": 0.0, "probability_difference": 1e-5}
BATCH = 256  # windows that the bundle's network predicts in one call


@dataclass(frozen=True)
class Flip:
    """A window for which the exported model decides differently from the bundle.

    Parameters
    ----------
    database, record : str
        The recording.
    start_s : float
        Start of the window, in seconds.
    aha_class : str
        AHA class of the window.
    probability, exported : float
        Probability of *shockable* from the bundle, and from the exported model.
    """

    database: str
    record: str
    start_s: float
    aha_class: str
    probability: float
    exported: float


@dataclass(frozen=True)
class Rescoring:
    """The results of a bundle and its export on the same windows.

    Parameters
    ----------
    part : str
        The subset of the windows: ``"validation"``, or ``"training"`` for a bundle that all patients trained.
    windows, patients : int
        Number of windows and patients in this subset.
    sensitivity, specificity : float
        Results of the bundle, 0 to 1.
    exported_sensitivity, exported_specificity : float
        Results of the exported model.
    largest_probability_difference, largest_logit_difference : float
        Largest absolute difference in a window.
    flips : tuple of Flip
        The windows with different decisions.
    """

    part: str
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
    part: str = "validation",
    on_window: Callable[[], Any] | None = None,
) -> Rescoring:
    """Compare an exported model with the bundle's network, `original`.

    `windows` must have no intermediate AHA classes. The network advises a shock if its probability is at least
    `threshold`. The exported model advises a shock if its logit is at least the logit of `threshold`. `part` names the
    subset of the windows. `on_window` is called after each window.

    Raises
    ------
    ValueError
        If there are no shockable or no nonshockable windows.
    """
    truth = shockable(windows)
    if truth.all() or not truth.any():
        raise ValueError(
            f"the {part} subset has {int(truth.sum())} shockable and {int((~truth).sum())} nonshockable windows; "
            f"both are needed to check an export. Train on a split whose {part} subset has both."
        )
    keras = import_keras()
    last = original.layers[-1]
    weights, bias = (np.asarray(value, dtype=np.float64) for value in last.get_weights())
    features_and_output = keras.Model(original.input, [last.input, last.output])
    batches = [features_and_output(windows.ecg[i : i + BATCH, :, np.newaxis]) for i in range(0, len(windows), BATCH)]
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
        part=part,
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
    """Return the largest allowed differences for an export to the format `to`; see `check_tolerance`."""
    return INT8_LIMITS if to.endswith("-int8") else FLOAT_LIMITS


def check_tolerance(rescoring: Rescoring, to: str) -> None:
    """Raise ValueError if an export differs from its bundle by more than the limits of its format."""
    flipped = len(rescoring.flips) / rescoring.windows
    sensitivity_change = rescoring.exported_sensitivity - rescoring.sensitivity
    specificity_change = rescoring.exported_specificity - rescoring.specificity
    difference = rescoring.largest_probability_difference
    found = {
        "flipped": (flipped, f"{100 * flipped:.2f} % of the decisions changed"),
        "sensitivity_change": (
            abs(sensitivity_change),
            f"Se changed by {100 * sensitivity_change:+.2f} percentage points",
        ),
        "specificity_change": (
            abs(specificity_change),
            f"Sp changed by {100 * specificity_change:+.2f} percentage points",
        ),
        "probability_difference": (difference, f"probabilities differ by up to {difference:.2g}"),
    }
    exceeded = []
    for name, limit in limits_of(to).items():
        value, text = found[name]
        if not value <= limit:  # true for NaN
            allowed = f"{limit:g}" if name == "probability_difference" else f"{100 * limit:g}"
            allowed += " %" if name == "flipped" else ""
            exceeded.append(f"{text}, but at most {allowed} is allowed")
    if exceeded:
        remedy = "Install the package versions that pyproject.toml requires, or train the model again"
        if to.endswith("-int8"):
            remedy = (
                f"Too many probabilities are close to the threshold: export to {to.removesuffix('-int8')}, or train "
                "with more patients or another network"
            )
        raise ValueError(
            f"the export to {to} differs too much from the original model: {'; '.join(exceeded)} "
            f"({rescoring.part} subset, "
            f"{rescoring.windows:,} windows of {rescoring.patients} patients). Nothing was written. {remedy}."
        )
