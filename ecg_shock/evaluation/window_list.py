"""The windows to run an algorithm on, as a table, and its predictions matched with them.

The list says which windows must be predicted. A comparison with the predictions finds missing windows, windows that are
not in the list, and wrong classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, DataConfig, labelled_recordings, load_windows
from ecg_shock.data.manifests import database_path, load_manifest
from ecg_shock.data.readers import find_recording, open_file
from ecg_shock.data.splits import load_split
from ecg_shock.evaluation.evaluation_set import SHOWN_PATIENTS, measure_rate_and_amplitude
from ecg_shock.evaluation.metrics import Coverage, MissingWindows
from ecg_shock.evaluation.predictions import (
    MAX_FAULTS,
    TEST_ROLE,
    Predictions,
    describe_window,
    find_faults,
    list_faults,
    read_rows,
)
from ecg_shock.preprocessing import FS

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("train", "validation", TEST_ROLE)
START_TOLERANCE_S = 0.5 / FS  # half a step of the grid that starts lie on
_DURATIONS_PER_S = 1000  # durations are equal if they agree to the millisecond


def list_windows(data: DataConfig, folder: Path | None = None, *, fold: int | None = None) -> pd.DataFrame:
    """List the labelled windows of databases.

    Parameters
    ----------
    data : DataConfig
        Databases, split, window length, filter and labels; its fold is ignored.
    folder : pathlib.Path, optional
        Folder that holds the databases.
    fold : int, optional
        If given, ``role`` says whether the patient trains, validates or tests this fold. If not given, ``role`` is
        ``test`` for every window, because each patient is a test patient of one fold.

    Returns
    -------
    pandas.DataFrame
        One row per window of the first lead. The columns are ``database``, ``record``, ``patient``, ``lead``;
        ``start_s`` and ``duration_s`` in seconds; ``start_sample`` and ``samples`` at the recording's own rate, ``fs``
        in Hz; ``rhythm``, ``aha_class``; ``rate_bpm`` of VT and ``amplitude_mv`` of VF, NaN for others; ``fold``, the
        fold that tests the patient, and ``role``.

    Raises
    ------
    ValueError
        If there is no such fold, or if the split lists only some of the patients.
    FileNotFoundError
        If a database is missing.

    Notes
    -----
    Windows start at multiples of 8 ms, which are the samples at 125 Hz. Near a change of rhythm there is a gap (the
    guard of the database), after which the first window of an episode starts. Each further window starts where the
    window before it ends, rounded up to 8 ms. If the recording's own rate is not a multiple of 125 Hz,
    ``start_sample`` is the nearest sample.
    """
    import pandas as pd

    windows = load_windows(data, folder)
    leads = dict(_leads(data, folder))
    places = zip(windows.database.tolist(), windows.record.tolist(), windows.lead.tolist(), strict=True)
    fs, n_samples = np.array([leads[place] for place in places], dtype=float).reshape(-1, 2).T
    samples = np.round(windows.window_s * fs).astype(int)
    rate, amplitude = measure_rate_and_amplitude(windows)
    tested_in, role = _assign(windows.patient, data, fold)
    return pd.DataFrame(
        {
            **{name: getattr(windows, name) for name in ("database", "record", "patient", "lead", "start_s")},
            "duration_s": windows.window_s,
            # As `Recording.strip` does it: rounding both up may end after the recording.
            "start_sample": np.minimum(np.round(windows.start_s * fs), n_samples - samples).astype(int),
            "samples": samples,
            "fs": fs,
            "rhythm": windows.rhythm,
            "aha_class": windows.aha_class,
            "rate_bpm": rate,
            "amplitude_mv": amplitude,
            "fold": tested_in,
            "role": role,
        }
    )


def read_window_list(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the test windows from a list: one that `list_windows` made, or your own with the same columns.

    Parameters
    ----------
    path : path-like
        A CSV file with the columns that `Predictions.read_csv` needs. Columns with advice are not needed, and are
        ignored. Without the column ``role``, all windows are test windows.

    Raises
    ------
    ValueError
        If the file holds anything that `Predictions.read_csv` does not allow, or no test windows.
    OSError
        If the file cannot be read.
    """
    table, faults = read_rows(Path(path))
    for line, role in table.loc[~table["role"].isin(ROLES), "role"].items():
        faults.setdefault(line, f"role is {role!r}; allowed: {', '.join(ROLES)}")
    faults |= find_faults(table)
    if faults:
        raise ValueError(f"{path}, {list_faults('line', faults)}")
    table = table[table["role"] == TEST_ROLE].reset_index(drop=True)
    if not len(table):
        raise ValueError(f"{path} has no windows of the role {TEST_ROLE}; give a list with the windows to evaluate.")
    return table


def match(predictions: Predictions, listed: pd.DataFrame, source: str) -> tuple[Predictions, Coverage]:
    """Match predictions with the list of windows, by database, record, lead, start and duration.

    Parameters
    ----------
    predictions : Predictions
        Predictions of windows in any order. They may include windows that are not in the list.
    listed : pandas.DataFrame
        The list, as `read_window_list` returns it.
    source : str
        Name of the list, for errors and reports.

    Returns
    -------
    Predictions
        The advice for the listed windows, in the order of the list. Patients, labels and measurements are from the
        list.
    Coverage
        Which listed windows have no prediction, and how many predictions are of windows that are not in the list.

    Raises
    ------
    ValueError
        If no predicted window is in the list, if a window is predicted twice, or if a class or patient differs from the
        list.

    Notes
    -----
    Starts may differ from the list by half a sample at 125 Hz (4 ms), and durations by half a millisecond.
    """
    import pandas as pd

    key = ["database", "record", "lead", "milliseconds"]

    def keyed(frame: pd.DataFrame) -> pd.DataFrame:
        milliseconds = (_DURATIONS_PER_S * frame["duration_s"]).round().astype(int)
        frame = frame.assign(milliseconds=milliseconds, row=np.arange(len(frame)))
        return frame.astype(dict.fromkeys((*key[:3], "patient", "aha_class"), object)).sort_values("start_s")

    given = keyed(predictions.to_frame())
    reference = keyed(listed)[[*key, "start_s", "row", "patient", "aha_class"]]
    found = pd.merge_asof(
        given, reference, on="start_s", by=key, direction="nearest", tolerance=START_TOLERANCE_S,
        suffixes=("", "_listed"),
    )  # fmt: skip
    known = found[found["row_listed"].notna()].sort_values(["row_listed", "row"])
    if not len(known):
        raise ValueError(
            f"none of the {len(found)} windows is in {source}. The first is {describe_window(given.iloc[0])}; the list "
            f"begins with {describe_window(listed.iloc[0])}. Give database, record, lead, start_s and duration_s as "
            "the list does."
        )
    faults = [
        f"{describe_window(window)}: the window is given twice"
        for _, window in known[known.duplicated("row_listed")].iterrows()
    ]
    for column in ("aha_class", "patient"):
        faults += [
            f"{describe_window(window)}: {column} is {window[column]!r}, but {window[column + '_listed']!r} in the list"
            for _, window in known[known[column] != known[f"{column}_listed"]].iterrows()
        ]
    if faults:
        more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
        raise ValueError(
            "\n  ".join(
                [f"not as in {source}: {len(faults)} window{'s' * (len(faults) > 1)}", *faults[:MAX_FAULTS], *more]
            )
        )

    rows = known["row_listed"].to_numpy(int)
    missing = listed.drop(index=rows).groupby(["duration_s", "aha_class"], observed=True).size()
    coverage = Coverage(
        source=source,
        listed=len(listed),
        evaluated=len(known),
        unknown=len(found) - len(known),
        missing=tuple(
            MissingWindows(float(duration_s), str(aha_class), int(windows))
            for (duration_s, aha_class), windows in missing.items()
        ),
    )
    return predictions.on_windows(known["row"].to_numpy(int), listed.iloc[rows]), coverage


def _leads(data: DataConfig, folder: Path | None) -> Iterator[tuple[tuple[str, str, str], tuple[float, int]]]:
    """Yield database, record and lead, and the sampling rate and length of the lead, as the headers give them."""
    for name in data.databases:
        if name == SYNTHETIC:
            for recording in labelled_recordings(name):
                for lead in recording.leads:
                    yield (recording.database, recording.name, lead), (recording.fs, len(recording.signal))
            continue
        manifest = load_manifest(name)
        path = database_path(name, folder)
        for record in manifest.records:
            file = open_file(find_recording(path / record), None)
            for channel in file.channels if file else ():
                yield (manifest.name, record, channel.name), (channel.fs, channel.n_samples)


def _assign(patients: np.ndarray, data: DataConfig, fold: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the fold that tests each window's patient, and the patient's role; each of shape (n_windows,)."""
    folds = load_split(data.split)
    if fold is not None and not 0 <= fold < len(folds):
        raise ValueError(f"fold={fold!r}, but {data.split!r} has the folds 0 to {len(folds) - 1}.")
    names, number = np.unique(patients, return_inverse=True)
    tested_in = {patient: k for k, one in enumerate(folds) for patient in one.test}
    unlisted = [name for name in names.tolist() if name not in tested_in]
    if unlisted and (fold is not None or len(unlisted) < len(names)):
        raise ValueError(
            f"split {data.split!r} does not list the patients {unlisted[:SHOWN_PATIENTS]!r}; run the command "
            "for their databases alone, and without a fold."
        )
    # Patients of no split are new to every model, so one fold tests them all, as in `EvaluationSet`.
    of_name = np.array([tested_in.get(name, 0) for name in names.tolist()], dtype=int)
    if fold is None:
        return of_name[number], np.full(len(patients), TEST_ROLE)
    roles = [next(role for role in ROLES if name in getattr(folds[fold], role)) for name in names.tolist()]
    return of_name[number], np.array(roles)[number]
