"""`ecg-shock windows` counts every second once, and plots windows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ecg_shock.commands.app import app
from ecg_shock.data.augment import NOISE_RECORDS, Augmentation
from ecg_shock.data.datasets import SYNTHETIC_PATIENTS, SYNTHETIC_SEED, DataConfig, load_windows
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.window_list import list_windows
from ecg_shock.models import CnnSpec
from ecg_shock.models.bundle import load_bundle
from ecg_shock.rhythms import AHA_CLASSES, AHA_LABELS
from ecg_shock.training.fold import TrainingFold
from ecg_shock.training.trainer import TrainingConfig


@pytest.fixture
def synthetic() -> WindowSet:
    """Load the embedded synthetic windows."""
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
    """What is excluded and what is in windows together are the seconds that were recorded."""
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
def test_balance_is_the_length_in_the_headers(recordings_dir: Path) -> None:
    """Every second of cudb is accounted for."""
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
        (
            ["synthetic", "--sheet", "nowhere/sheet.png"],
            "--sheet is 'nowhere/sheet.png', but its folder does not exist",
        ),
        (["synthetic", "--seed", "-1"], "--seed"),
        (["synthetic", "--fold", "1"], "--fold needs --csv"),
        (["synthetic", "--csv", "list.txt"], "give a file that ends in .csv"),
        (["nstdb"], "nstdb has no labels"),
    ],
)
def test_what_cannot_be_done_is_refused_before_reading(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong options are refused before recordings are read."""
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


def test_list_is_written(tmp_path: Path) -> None:
    """--csv writes what `list_windows` lists, with the roles of the fold."""
    path = tmp_path / "list.csv"
    output = run("synthetic", "--window", "4", "--csv", path, "--fold", "2")
    expected = list_windows(DataConfig(databases=("synthetic",), window_s=4.0), fold=2)
    pd.testing.assert_frame_equal(pd.read_csv(path), expected, check_dtype=False)
    assert set(expected["role"]) == {"train", "validation", "test"}
    assert f"csv: {path}, {len(expected):,} windows" in output.replace("\n", "")


def test_augmented_windows_of_a_bundle(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sheet shows the windows that trained a bundle; its card counts the synthetic nonshockable ones."""
    noise = {name: rng.standard_normal(20_000).astype(np.float32) for name in NOISE_RECORDS}
    monkeypatch.setattr("ecg_shock.training.fold.read_training_noise", lambda folder: noise)
    fold = TrainingFold.load(DataConfig(databases=("synthetic",)))
    config = TrainingConfig(
        epochs=2, learning_rate=0.01, augmentation=Augmentation(windows=256, artefact=0.2), calibrated=True
    )
    result = fold.train(CnnSpec((6, 6), (9, 9), pool=4), config, tmp_path / "run")
    fold.write_bundle(tmp_path / "bundle", "augmented", result, selection="none")
    card = load_bundle(tmp_path / "bundle").card
    assert card.synthetic_nonshockable == {"artefact": 26 * result.best.epoch}
    assert card.calibration is not None
    assert card.calibration > 0

    output = run("--augmented", tmp_path / "bundle", "--sheet", tmp_path / "sheet.png")
    assert numbers(output, "artefact")[0] == 26
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    for wrong in (["--augmented", str(tmp_path / "bundle")], ["synthetic", "--augmented", "x", "--sheet", "a.png"]):
        result_of_command = CliRunner().invoke(app, ["windows", *wrong])
        assert result_of_command.exit_code == 1
        assert "--augmented needs --sheet" in result_of_command.stderr
