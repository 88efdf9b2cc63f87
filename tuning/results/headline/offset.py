"""Show on validation patients that an offset of the logit does not carry over to other patients.

`python tuning/results/headline/offset.py FOLDER` takes the models of all folds. For each fold and window length, a
logistic calibration with an offset is fitted on a random half of the validation patients. On the other half, the
balanced accuracy with this calibration is compared with that of the model itself, 200 times. The test patients are not
used.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from ecg_shock.data.datasets import load_validation, shockable
from ecg_shock.evaluation.evaluation_set import find_bundles
from ecg_shock.files import with_values
from ecg_shock.inference.advisor import Advisor
from ecg_shock.training.fold import proportions

DURATIONS_S = (5.0, 2.0)
HALVES = 200
MIN_SHOCKABLE = 20  # windows in each half


def main() -> None:
    """Print a line for each fold and window length."""
    parser = argparse.ArgumentParser(description="Compare models with and without an offset, on validation patients.")
    parser.add_argument("folder", type=Path, help="folder with a bundle for each fold")
    parser.add_argument("--data", type=Path, default=None, help="folder of the recordings")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print("fold  window  balanced accuracy %: as it is  with an offset of other patients")
    for bundle in find_bundles(arguments.folder):
        advisor = Advisor(bundle)
        for duration_s in DURATIONS_S:
            windows = load_validation(with_values(bundle.card.data, window_s=duration_s), arguments.data)
            probability = np.clip(advisor.probabilities(windows.ecg).astype(float), 1e-9, 1 - 1e-9)
            logit, truth = np.log(probability / (1 - probability)), shockable(windows)
            found = np.mean(list(_halves(logit, truth, windows.patient, rng)), axis=0)
            fold, (own, offset) = bundle.card.data.fold, 100 * found
            print(f"{fold:4}  {duration_s:4g} s  {own:30.2f}  {offset:8.2f}", flush=True)


def _halves(
    logit: np.ndarray, truth: np.ndarray, patient: np.ndarray, rng: np.random.Generator
) -> Iterator[list[float]]:
    """Yield the balanced accuracy on one half of the patients, without and with the calibration on the other half."""
    patients = np.unique(patient)
    for _ in range(HALVES):
        fitted = np.isin(patient, rng.permutation(patients)[: len(patients) // 2])
        if min(truth[fitted].sum(), truth[~fitted].sum()) < MIN_SHOCKABLE:
            continue
        model = LogisticRegression(C=np.inf, class_weight="balanced").fit(logit[fitted, np.newaxis], truth[fitted])
        shifted = model.decision_function(logit[~fitted, np.newaxis])
        yield [float(np.mean(proportions(z >= 0, truth[~fitted]))) for z in (logit[~fitted], shifted)]


if __name__ == "__main__":
    main()
