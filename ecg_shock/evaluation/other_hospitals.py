"""Specificity on patients of other hospitals, who are neither trained on nor of the split."""

from __future__ import annotations

import numpy as np

from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.confidence import Proportion, compute_proportion

ALL = "all"


def specificity_by_database(windows: WindowSet, shock: np.ndarray) -> dict[str, Proportion]:
    """Compute the proportion of nonshockable windows without shock advice for each database, and for all together.

    Sensitivity has no place here: `ecg_shock.data.datasets.Subsets.other_hospitals` holds nonshockable windows only.

    Parameters
    ----------
    windows : WindowSet
        Nonshockable windows.
    shock : numpy.ndarray
        Shape (n_windows,), bool: the advice.

    Returns
    -------
    dict of str to Proportion
        By name of the database, in the order of the windows, then ``"all"``.

    Raises
    ------
    ValueError
        If there is not one advice for each window.
    """
    if shock.shape != (len(windows),):
        raise ValueError(f"shock has shape {shock.shape} for {len(windows)} windows; give one advice for each.")
    _, patient = np.unique(windows.patient, return_inverse=True)
    found = {}
    for database in dict.fromkeys(windows.database.tolist()):
        of_database = windows.database == database
        found[database] = compute_proportion(patient[of_database], ~shock[of_database])
    return {**found, ALL: compute_proportion(patient, ~shock)}
