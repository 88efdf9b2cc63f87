"""The figures show their data: the windows that are named, one scale of ECG paper, and the range of a scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread

from ecg_shock import Recording, scan
from ecg_shock.data import lead as pieces
from ecg_shock.data.datasets import DataConfig, load_windows
from ecg_shock.data.lead import open_lead
from ecg_shock.data.windows import WindowSet
from ecg_shock.plots import (
    LARGE_BOX_MV,
    LARGE_BOX_S,
    SCAN_COLUMNS,
    SHEET_COLUMNS,
    _envelope,
    _limits,
    draw_candidates,
    draw_history,
    draw_scan,
    draw_sheet,
    draw_trials,
)
from ecg_shock.rhythms import AHA_CLASSES
from ecg_shock.search.consensus import Candidate
from ecg_shock.search.trials import Trial
from ecg_shock.training.trainer import EpochLog


@pytest.fixture(scope="module")
def synthetic() -> WindowSet:
    """Load the embedded synthetic windows."""
    return load_windows(DataConfig(databases=("synthetic",)))


def epoch_log(epoch: int, **changes: float | None) -> EpochLog:
    """Return the log of an epoch."""
    measured = {"loss": 1 / epoch, "validation_loss": 1.1 / epoch, "kish": 20.0, "largest_weight": 3.0, "seconds": 0.1}
    found = {"sensitivity": 0.5, "specificity": 0.9, "balanced_accuracy": 0.7, "gain": 1.5, "effective_batch": 40.0}
    return EpochLog(epoch=epoch, drawn={"coarse_vf": 0.4, "normal_sinus": 0.6}, **(measured | found | changes))


def test_history_is_drawn(tmp_path: Path) -> None:
    """A long history and a single epoch are drawn without pyplot; an empty history is an error."""
    history = [epoch_log(i, effective_batch=30.0 + i) for i in range(1, 30)]
    unknown = [epoch_log(i, gain=None, effective_batch=None) for i in range(1, 4)]  # of a biased sampler
    for name, part in (("long.png", history), ("one.svg", history[:1]), ("biased.png", unknown)):
        draw_history(part).savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert matplotlib.pyplot.get_fignums() == []
    with pytest.raises(ValueError, match="no epoch"):
        draw_history([])


@pytest.mark.parametrize("shown", [slice(None), slice(2, None)])
def test_trials_are_drawn(tmp_path: Path, shown: slice) -> None:
    """The image is not empty, even if all trials failed."""
    common = {"learning_rate": 1e-3, "seed": 0, "macs": 1000, "kernels": (5,)}
    trials = [
        Trial(name="0", filters=(5,), parameters=61, balanced_accuracy=0.9, **common),
        Trial(name="1", filters=(5, 5), parameters=161, balanced_accuracy=0.95, **common),
        Trial(name="3", filters=(50,), parameters=351, error="died, badly", **common),
    ]
    draw_trials(trials[shown], title="study").savefig(tmp_path / "trials.png")
    assert imread(tmp_path / "trials.png").std() > 0.01


def trial(name: str, macs: int, accuracy: float, **changes: Any) -> Trial:
    """Return a trial of two blocks."""
    common = {"learning_rate": 1e-3, "seed": 0, "parameters": 61, "filters": (5, 10), "kernels": (5, 15), "loss": 0.1}
    return Trial(name=name, macs=macs, balanced_accuracy=accuracy, **(common | changes))


def test_the_front_is_drawn_through_the_trials_that_none_beats(tmp_path: Path) -> None:
    """Its steps are at the multiply-adds and accuracies that no other trial beats, and failed trials are not on it."""
    costs, accuracies = [3, 1, 2, 2, 5, 4, 1], [0.93, 0.90, 0.91, 0.92, 0.93, 0.95, 0.89]
    trials = [trial(str(i), 10**6 * c, a) for i, (c, a) in enumerate(zip(costs, accuracies, strict=True))]
    trials.append(trial("9", 10**6, 0.99, error="died"))
    line = draw_trials(trials, title="study").axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_allclose(line.get_ydata(), [90, 92, 93, 95])


def test_candidates_are_drawn_with_their_trials(tmp_path: Path) -> None:
    """Each row has the lines of a depth's best trials, and last that of the candidate."""
    few = tuple(trial(str(i), 10**6, 0.9 + i / 100, filters=(5 + 5 * i,), kernels=(10,)) for i in range(3))
    deep = (trial("7", 10**6, 0.9),)
    figure = draw_candidates([Candidate((10,), (10,), few), Candidate((5, 10), (5, 15), deep)], title="study")
    filters, _, deep_filters, deep_kernels = figure.axes
    assert [line.get_ydata()[0] for line in filters.lines] == [5, 10, 15, 10]
    assert [list(line.get_ydata()) for line in deep_filters.lines] == [[5, 10], [5, 10]]
    assert list(deep_kernels.lines[-1].get_ydata()) == [5, 15]
    figure.savefig(tmp_path / "consensus.png")
    assert imread(tmp_path / "consensus.png").std() > 0.01


def test_sheet_shows_the_windows_it_names(synthetic: WindowSet) -> None:
    """The record and start above each curve are those of its samples, and every class has a row."""
    axes = draw_sheet(synthetic, seed=3).axes
    shown = set()
    for one in axes:
        place, _, rest = one.get_title(loc="left").partition(" @ ")
        record, start_s = place.removeprefix("synthetic/"), float(rest.split()[0])
        near = np.abs(synthetic.start_s - start_s) < 0.051
        (index,) = np.flatnonzero((synthetic.record == record) & near)
        np.testing.assert_array_equal(one.lines[0].get_ydata(), synthetic.ecg[index])
        shown.add(str(synthetic.aha_class[index]))
    assert shown == set(AHA_CLASSES)
    assert len(axes) == SHEET_COLUMNS * len(AHA_CLASSES)


def test_sheet_has_one_scale(synthetic: WindowSet) -> None:
    """A large box is square in every row, as on ECG paper."""
    figure = draw_sheet(synthetic, seed=0)
    width, height = figure.get_size_inches()

    def box(axes: Axes) -> tuple[float, float]:
        place = axes.get_position()
        per_s = place.width * width / np.ptp(axes.get_xlim())
        per_mv = place.height * height / np.ptp(axes.get_ylim())
        return per_s * LARGE_BOX_S, per_mv * LARGE_BOX_MV

    sides = np.array([box(axes) for axes in figure.axes])
    np.testing.assert_allclose(sides, sides[0, 0], rtol=1e-9)


def test_sheet_shows_different_patients(synthetic: WindowSet) -> None:
    """With enough patients none is drawn twice; another seed draws others."""

    def records(seed: int) -> list[str]:
        return [axes.get_title(loc="left").split(" @ ")[0] for axes in draw_sheet(synthetic, seed).axes]

    first = records(0)
    for row in range(len(AHA_CLASSES)):
        assert len(set(first[row * SHEET_COLUMNS : (row + 1) * SHEET_COLUMNS])) == SHEET_COLUMNS
    assert records(0) == first != records(1)


def test_sheet_without_windows_is_an_error(synthetic: WindowSet) -> None:
    """Without windows there is an error."""
    with pytest.raises(ValueError, match="no windows to draw"):
        draw_sheet(synthetic.select(np.zeros(len(synthetic), dtype=bool)), seed=0)


@pytest.mark.parametrize("n_samples", [5, SCAN_COLUMNS - 1, SCAN_COLUMNS, 3 * SCAN_COLUMNS + 17])
def test_envelope_is_the_range_of_each_column(rng, monkeypatch: pytest.MonkeyPatch, n_samples: int) -> None:
    """It equals that of a plain loop, with invalid samples, and pieces that end inside columns."""
    monkeypatch.setattr(pieces, "PIECE_S", 7.0)
    signal = rng.normal(size=(n_samples, 1)).astype(np.float32)
    signal[n_samples // 3 : n_samples // 2] = np.nan
    middle_s, low, high = _envelope(open_lead(Recording(signal, 10.0, ("II",))))
    columns = min(SCAN_COLUMNS, n_samples)
    for i in range(columns):
        inside = signal[i * n_samples // columns : (i + 1) * n_samples // columns, 0]
        inside = inside[np.isfinite(inside)]
        if len(inside):
            assert (low[i], high[i]) == (inside.min(), inside.max())
        else:
            assert np.isnan([low[i], high[i]]).all()
    assert (np.diff(middle_s) > 0).all()


@pytest.mark.parametrize("seconds", [8.0, 300.0, 9000.0])
def test_short_and_long_recordings_are_drawn(tmp_path: Path, seconds: float) -> None:
    """They are drawn, even if no sample is valid."""
    for signal in (np.sin(np.arange(round(125 * seconds)) / 4), np.full(round(125 * seconds), np.nan)):
        recording = Recording(signal[:, None], 125.0, ("II",), name="made")
        draw_scan(scan(recording, step_s=5.0), open_lead(recording)).savefig(tmp_path / "made.png")
        assert imread(tmp_path / "made.png").std() > 0.05


def test_a_single_window_is_visible(tmp_path: Path) -> None:
    """The figure changes with the probability of a recording's only window."""
    recording = Recording(np.sin(np.arange(625) / 4)[:, None], 125.0, ("II",), name="made")
    result = scan(recording)
    pictures = []
    for probability in (0.2, 0.9):
        figure = draw_scan(replace(result, probability=np.array([probability])), open_lead(recording))
        figure.savefig(tmp_path / "made.png")
        pictures.append(imread(tmp_path / "made.png"))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize(
    ("rare", "expected"),
    [
        (1.5, (-1.2, 1.7)),  # as the QRS complexes of a few seconds are: all is drawn
        (1e30, (-1.2, 2.2)),  # the 2 mV of the ECG are half, but for the margins
        (np.nan, (-1.2, 1.2)),
    ],
)
def test_rare_peaks_are_drawn_and_artefacts_are_cut(rare: float, expected: tuple[float, float]) -> None:
    """Peaks in two of 3,000 columns are drawn if they leave half of the height to the rest."""
    high = np.ones(3000)
    high[[7, 800]] = rare
    assert _limits(-np.ones(3000), high) == pytest.approx(expected)
