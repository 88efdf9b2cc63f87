"""`ecg-shock windows` counts every second once, and draws what it names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from typer.testing import CliRunner

from ecg_shock.commands.app import app
from ecg_shock.commands.windows import LARGE_BOX_MV, LARGE_BOX_S, SHEET_COLUMNS, draw_sheet
from ecg_shock.data.datasets import SYNTHETIC_PATIENTS, SYNTHETIC_SEED, DataConfig, load_windows
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import WindowSet
from ecg_shock.rhythms import AHA_CLASSES, AHA_LABELS


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a cache folder."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def synthetic(cache: Path, monkeypatch: pytest.MonkeyPatch) -> WindowSet:
    """Load the embedded synthetic windows."""
    monkeypatch.setenv("ECG_SHOCK_CACHE", str(cache))
    return load_windows(DataConfig(databases=("synthetic",)))


def run(*arguments: str | Path) -> str:
    """Run the command and return what it printed."""
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["windows", *(str(argument) for argument in arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def numbers(output: str, start: str) -> list[float]:
    """Read the numbers of the row that begins so."""
    row = next(line.strip() for line in output.splitlines() if line.strip().startswith(start))
    return [float(cell.replace(",", "")) for cell in row.removeprefix(start).split()]


def test_table_counts_windows_and_patients(synthetic: WindowSet) -> None:
    """Each row holds patients, windows and seconds of its class, and the last one those of all."""
    output = run("synthetic")
    counts = Counter(synthetic.aha_class.tolist())
    for aha_class in AHA_CLASSES:
        label = AHA_LABELS[aha_class].split(" (")[0]
        patients = {p for p, c in zip(synthetic.patient, synthetic.aha_class, strict=True) if c == aha_class}
        start = f"synthetic   {label}" if aha_class == AHA_CLASSES[0] else label
        assert numbers(output, start) == [len(patients), counts[aha_class], 5 * counts[aha_class]]
    assert numbers(output, "all") == [SYNTHETIC_PATIENTS, counts.total(), 5 * counts.total()]
    assert max(map(len, output.splitlines())) <= 80


def test_balance_is_the_length_of_the_recordings(synthetic: WindowSet) -> None:
    """What is left out and what is in windows together are the seconds that were recorded."""
    output = run("synthetic")
    recorded = sum(r.duration_s for r in synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED))
    assert numbers(output, "= recordings") == [pytest.approx(recorded, abs=1)] * 2
    noise = sum(
        episode.end_s - episode.start_s
        for recording in synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED)
        for episode in recording.episodes
        if episode.rhythm == "noise"
    )
    assert numbers(output, "labelled noise") == [pytest.approx(noise, abs=1)] * 2


@pytest.mark.recordings
def test_balance_is_the_length_in_the_headers(
    recordings_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second of cudb is accounted for."""
    monkeypatch.setenv("ECG_SHOCK_CACHE", str(cache))
    seconds = 0.0
    for header in (recordings_dir / "cudb").glob("*.hea"):
        _, _, fs, samples = header.read_text().split()[:4]
        seconds += int(samples) / float(fs)
    output = run("cudb", "--data", recordings_dir)
    assert numbers(output, "= recordings") == [pytest.approx(seconds, abs=1)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["synthetic", "--sheet", "sheet.gif"], "ends in .png, .pdf, .svg"),
        (["synthetic", "--sheet", "nowhere/sheet.png"], "nowhere, the folder of --sheet, is not there"),
        (["synthetic", "--seed", "-1"], "--seed"),
        (["nstdb"], "nstdb has no labels"),
    ],
)
def test_what_cannot_be_done_is_refused_before_reading(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong option costs no minutes: nothing is prepared."""
    monkeypatch.setenv("ECG_SHOCK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["windows", *options])
    assert done.exit_code != 0
    assert message in " ".join(done.output.split())
    assert not (tmp_path / "cache").exists()


def test_sheet_is_written(synthetic: WindowSet, tmp_path: Path) -> None:
    """--sheet writes a picture and says where."""
    output = run("synthetic", "--sheet", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert f"sheet: {tmp_path / 'sheet.png'}" in output.replace("\n", "")


def test_sheet_shows_the_windows_it_names(synthetic: WindowSet) -> None:
    """Record and start above each curve lead to the very samples below, and every class has a row."""
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
    """As long as there are enough patients, none comes twice; another seed shows others."""

    def records(seed: int) -> list[str]:
        return [axes.get_title(loc="left").split(" @ ")[0] for axes in draw_sheet(synthetic, seed).axes]

    first = records(0)
    for row in range(len(AHA_CLASSES)):
        assert len(set(first[row * SHEET_COLUMNS : (row + 1) * SHEET_COLUMNS])) == SHEET_COLUMNS
    assert records(0) == first != records(1)


def test_sheet_of_nothing_is_refused(synthetic: WindowSet) -> None:
    """Without windows there is nothing to draw."""
    with pytest.raises(ValueError, match="no windows to draw"):
        draw_sheet(synthetic.select(np.zeros(len(synthetic), dtype=bool)), seed=0)
