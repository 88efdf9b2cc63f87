"""Compute the specificity on patients of other hospitals, who belong to no split and are not trained on."""

from __future__ import annotations

import numpy as np

from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.confidence import Proportion, compute_proportion

ALL = "all"


def specificity_by_database(windows: WindowSet, shock: np.ndarray) -> dict[str, Proportion]:
    """Compute the specificity for each database, and for all databases together.

    Specificity is the proportion of nonshockable windows without a shock advised.

    Parameters
    ----------
    windows : WindowSet
        Nonshockable windows, such as `ecg_shock.data.datasets.Subsets.other_hospitals`.
    shock : numpy.ndarray
        Shape (n_windows,), bool: True for each window with a shock advised.

    Returns
    -------
    dict of str to Proportion
        The specificity by name of the database, in the order of the windows; then that of ``"all"``.

    Raises
    ------
    ValueError
        If `shock` does not have one value for each window.
    """
    if shock.shape != (len(windows),):
        raise ValueError(f"shock has shape {shock.shape} for {len(windows)} windows; give one value for each window.")
    _, patient = np.unique(windows.patient, return_inverse=True)
    found = {}
    for database in dict.fromkeys(windows.database.tolist()):
        of_database = windows.database == database
        found[database] = compute_proportion(patient[of_database], ~shock[of_database])
    return {**found, ALL: compute_proportion(patient, ~shock)}
