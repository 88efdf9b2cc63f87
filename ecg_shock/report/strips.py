"""Cut the raw ECG around windows with wrong advice, and predict the probability over time, for the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ecg_shock.data.recordings import Recording
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.inference.advisor import Advisor
from ecg_shock.preprocessing import FS, preprocess
from ecg_shock.report.gallery import Strip

MARGIN_S = 1.0  # shown on each side of a window
STEP_S = 0.5  # between two probabilities


def strips_of(
    recording: Recording, predictions: Predictions, rows: Sequence[int], advisors: Mapping[int, Advisor]
) -> dict[int, Strip]:
    """Cut the raw ECG around the windows of one recording, and predict its probability over time.

    Parameters
    ----------
    recording : Recording
        The recording; windows of other recordings are ignored.
    predictions, rows : Predictions, sequence of int
        The predictions, and the rows of the windows to show.
    advisors : mapping of int to Advisor
        The model of each fold.

    Returns
    -------
    dict of int to Strip
        The strip of each row whose window is in this recording. A strip extends `MARGIN_S` before and after the window,
        within the recording. The probability at a time is that of the window of the same length that ends at this time;
        there is one every `STEP_S`. The recording is filtered before it is cut, as in the evaluation, so the
        probability at the end of the window equals the evaluated probability.

    Raises
    ------
    ValueError
        If the recording lacks the lead of a window.
    """
    index = np.array(rows, dtype=np.int64)
    here = (predictions.database[index] == recording.database) & (predictions.record[index] == recording.name)
    filtered: dict[tuple[str, int], np.ndarray] = {}
    found: dict[int, Strip] = {}
    for row in index[here].tolist():
        lead, fold = str(predictions.lead[row]), int(predictions.fold[row])
        if lead not in recording.leads:
            raise ValueError(
                f"{recording.database}/{recording.name} has no lead {lead!r}; give one of {recording.leads!r}."
            )
        column = recording.signal[:, recording.leads.index(lead)]
        if (lead, fold) not in filtered:
            filtered[lead, fold] = preprocess(column, recording.fs, advisors[fold].bundle.preprocessing)
        window = float(predictions.start_s[row]), float(predictions.duration_s[row])
        found[row] = _strip(column, recording.fs, window, filtered[lead, fold], advisors[fold])
    return found


def _strip(column: np.ndarray, fs: float, window: tuple[float, float], filtered: np.ndarray, advisor: Advisor) -> Strip:
    start_s, duration_s = window
    first = round((start_s - MARGIN_S) * fs)
    last = first + round((duration_s + 2 * MARGIN_S) * fs)
    first, last = max(first, 0), min(last, len(column))
    samples = round(duration_s * FS)
    steps = np.arange(-int((MARGIN_S + duration_s) / STEP_S), int(MARGIN_S / STEP_S) + 1)
    firsts = round(start_s * FS) + np.round(steps * STEP_S * FS).astype(int)
    firsts = firsts[(firsts >= 0) & (firsts + samples <= len(filtered))]
    return Strip(
        ecg=column[first:last].astype(np.float64),
        fs=fs,
        start_s=first / fs,
        probability_at_s=(firsts + samples) / FS,
        probability=advisor.probabilities(filtered[firsts[:, np.newaxis] + np.arange(samples)]),
    )
