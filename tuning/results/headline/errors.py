"""Draw the errors that remain: `python tuning/results/headline/errors.py OUT` writes `OUT/errors.png`.

`OUT` is a folder that `ecg-shock validate` has evaluated. The picture has one window of 5 s for each of the twelve
patients with the most errors: of the wrong windows of this patient, the one in the middle. The printed table lists all
patients with errors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ecg_shock.data.datasets import DataConfig, load_windows
from ecg_shock.preprocessing import FS
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

ROWS, COLUMNS = 4, 3
LENGTH_S = 5.0


def read_errors(folder: Path) -> pd.DataFrame:
    """Read the windows of 5 s with wrong advice, and how many windows of the same class the patient has."""
    table = pd.read_csv(folder / "validation" / "predictions.csv")
    table = table[(table.duration_s == LENGTH_S) & table.aha_class.isin((*SHOCKABLE, *NONSHOCKABLE))]
    table["truth"] = table.aha_class.isin(SHOCKABLE)
    table["windows"] = table.groupby(["patient", "truth"]).record.transform("size")
    return table[table.shock.astype(str).str.lower().isin(("true", "1")) != table.truth]


def main() -> None:
    """Print the table and write the picture."""
    folder = Path(sys.argv[1])
    errors = read_errors(folder)
    patients = errors.groupby(["patient", "truth"]).agg(errors=("record", "size"), windows=("windows", "first"))
    patients = patients.sort_values("errors", ascending=False).reset_index()
    for row in patients.itertuples():
        print(f"{row.patient:<12} {'shock missed' if row.truth else 'wrong shock':<12} {row.errors:4} of {row.windows}")
    found = load_windows(DataConfig(window_s=LENGTH_S))
    figure = Figure(figsize=(15, 9), dpi=80, layout="constrained")
    for axes, row in zip(figure.subplots(ROWS, COLUMNS).flat, patients.itertuples(), strict=False):
        of_patient = errors[(errors.patient == row.patient) & (errors.truth == row.truth)].sort_values("start_s")
        window = of_patient.iloc[len(of_patient) // 2]
        index = np.flatnonzero(
            (found.record == str(window.record)) & (np.abs(found.start_s - window.start_s) < 1 / FS)
        )[0]
        axes.plot(np.arange(len(found.ecg[index])) / FS, found.ecg[index], color="black", linewidth=0.8)
        axes.set_title(
            f"{row.patient}: {'missed' if row.truth else 'wrong shock'} in {row.errors} of {row.windows} windows\n"
            f"labelled {window.aha_class.replace('_', ' ')}, at {window.start_s:.0f} s, "
            f"probability {window.probability:.2f}",
            fontsize=10,
        )
        axes.grid(alpha=0.3)
    figure.supxlabel("time, s")
    figure.supylabel("ECG after the filter, mV")
    figure.savefig(folder / "errors.png")
    print(folder / "errors.png")


if __name__ == "__main__":
    main()
