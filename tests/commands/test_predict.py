"""`ecg-shock predict` prints what `ecg_shock.predict` advises on the strip that was asked for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ecg_shock import Advisor
from ecg_shock.commands.app import app
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.inference.advisor import DEFAULT_BUNDLE

FS = 250


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Write 20 s in µV: a synthetic ECG in the first column, the same upside down and shifted in the second."""
    whole = next(synthetic_recordings(1, 7))
    first = whole.signal[: 20 * FS, 0] * 1000
    signal = np.stack([first, -np.roll(first, 777)], axis=1)
    path = tmp_path_factory.mktemp("recording") / "a [b].npy"
    np.save(path, signal)
    return path, signal


def run(path: Path, *options: str | Path) -> Result:
    """Run the command on a file of 250 Hz in µV."""
    arguments = ["predict", path, "--fs", FS, "--units", "uV", *options]
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(argument) for argument in arguments])


def run_json(path: Path, *options: str | Path) -> dict[str, Any]:
    """Run the command with --json, and read that strictly."""
    result = run(path, *options, "--json")
    assert result.exit_code == 0, result.output

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(result.stdout, parse_constant=refuse)


def test_strip_is_the_one_asked_for(recording: tuple[Path, np.ndarray]) -> None:
    """Start, length, lead, rate and units reach the model."""
    path, signal = recording
    found = run_json(path, "--start", "3.5", "--length", "4", "--lead", "2")
    first = round(3.5 * FS)
    expected = Advisor().predict(signal[first : first + 4 * FS, 1], FS, units="uV")
    assert expected.usable
    assert found["probability"] == pytest.approx(expected.probability, abs=1e-4)
    assert (found["shock"], found["lead"], found["start_s"], found["length_s"]) == (expected.shock, "2", 3.5, 4.0)
    assert found["recording"] == str(path)


def test_lead_beside_a_time_column(recording: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Of a CSV whose first column is time, the lead beside it is read, and its name is printed."""
    _, signal = recording
    path = tmp_path / "a.csv"
    table = np.column_stack([np.arange(len(signal)) / FS, signal[:, 0]])
    np.savetxt(path, table, delimiter=",", header="time_s,II", comments="")
    assert run_json(path)["lead"] == run_json(path, "--lead", "II")["lead"] == "II"
    assert "lead II" in run(path).stdout
    assert (
        "'time_s' is not an ECG lead; choose a lead with leads= (--lead) from ['II']"
        in run(path, "--lead", "time_s").stderr
    )


def test_decimal_commas_are_read_as_the_options_say(recording: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """A CSV of which one column or two can be read asks for --decimal, and is read with it."""
    _, signal = recording
    path = tmp_path / "a.csv"
    path.write_text("\n".join(f"{uv:.1f}".replace(".", ",") for uv in signal[:, 0]), encoding="utf-8")
    assert "--decimal" in run(path).stderr
    found = run_json(path, "--decimal", ",")
    assert found["probability"] == pytest.approx(
        Advisor().predict(signal[: 5 * FS, 0], FS, units="uV").probability, abs=1e-3
    )
    assert "allowed are" in run(path, "--delimiter", "x").stderr


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "SHOCK ADVISED"), (None, "NO SHOCK ADVISED")])
def test_verdict_follows_the_threshold(
    share: float | None, verdict: str, recording: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    """The model of --model decides: a threshold below the probability advises a shock, one above does not."""
    path, signal = recording
    probability = Advisor().predict(signal[: 5 * FS, 0], FS, units="uV").probability
    threshold = (1 + probability) / 2 if share is None else share * probability
    folder = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    text = (folder / "bundle.toml").read_text(encoding="utf-8")
    text = re.sub("^threshold = .*$", f"threshold = {threshold!r}", text, count=1, flags=re.MULTILINE)
    (folder / "bundle.toml").write_text(text, encoding="utf-8")
    result = run(path, "--model", folder, "--lead", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == verdict
    assert f"probability  {probability:.3f} of shockable; threshold {threshold:g}" in result.stdout
    assert "a [b].npy" in result.stdout.replace("\n", "")


def test_unusable_strip_says_why(tmp_path: Path) -> None:
    """A flat line has no probability, and no shock is advised."""
    path = tmp_path / "flat.npy"
    np.save(path, np.zeros(5 * FS))
    result = run(path)
    assert result.exit_code == 0
    assert result.stdout.startswith("UNUSABLE: flat: the strip spans 0.000 mV")
    assert "probability" not in result.stdout
    found = run_json(path)
    assert (found["shock"], found["usable"], found["probability"]) == (False, False, None)
    assert found["reason"].startswith("flat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--lead", "1", "--start", "17"),
            "a strip of 5 s that starts at 17 s is not within the recording, which lasts 20 s",
        ),
        (("--lead", "1", "--start", "inf"), "is not within the recording"),
        (("--lead", "V5"), "has no leads ['V5']; choose from ['1', '2']"),
        ((), "no lead with the name of an ECG lead; choose a lead with lead= or leads= (--lead) from ['1', '2']"),
        (("--lead", "1", "--length", "1"), "allowed are 2 to 10 s"),
        (("--lead", "1", "--model", "nowhere"), "nowhere is not a bundle"),
    ],
)
def test_wrong_request_is_an_error(options: tuple[str, ...], message: str, recording: tuple[Path, np.ndarray]) -> None:
    """Errors are one line that says what is allowed."""
    result = run(recording[0], *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_explanation_is_printed_and_drawn(
    recording: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--explain prints a row for each second and band, at the times of the recording, and draws them; --json agrees."""
    monkeypatch.chdir(tmp_path)
    options = ("--lead", "1", "--start", "3.5", "--explain")
    result = run(recording[0], *options)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    picture = Path("runs/predict/a__b_-3.5s.png")
    assert f"written: {picture}" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = run_json(recording[0], *options, "--out", "none")["explanation"]
    assert not Path("none").exists()
    expected = Advisor().predict(recording[1][875:2125, 0], FS, units="uV").explain()
    assert [part["effect"] for part in found["parts"]] == pytest.approx(
        [part.effect for part in expected.parts], abs=1e-4
    )
    rows = [line.split("  ") for line in result.stdout.splitlines()]
    shown = {row[0].strip(): [cell for cell in row[1:] if cell.strip()] for row in rows if row}
    for part, at_s in zip(expected.seconds, (3.5, 4.5, 5.5, 6.5, 7.5), strict=True):
        assert float(shown[f"{at_s:g}–{at_s + 1:g} s"][1]) == pytest.approx(part.removed, abs=0.006)
    assert run(recording[0], "--lead", "1").stdout.splitlines()[0] == result.stdout.splitlines()[0]


def test_unusable_strip_has_no_explanation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--explain adds nothing to the reason why a strip is unusable."""
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.zeros(5 * FS))
    assert run(Path("flat.npy"), "--explain").stdout == run(Path("flat.npy")).stdout
    assert "explanation" not in run_json(Path("flat.npy"), "--explain")


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("fmt", ["16", "212"])
def test_strip_of_a_day_takes_little_memory(fmt: str, recording: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Of 24 h of three leads only the strip is read: at most 150 MB, the program included."""
    digital = np.round(recording[1][: 10 * FS, :1] / 5).astype("<i2") + np.array([0, 0, 7], "<i2")
    frames = 24 * 3600 * FS
    content = digital.tobytes()
    if fmt == "212":
        low, high = digital.reshape(-1, 2).T.astype(int)
        content = np.stack([low & 255, (low >> 8 & 15) | (high >> 8 & 15) << 4, high & 255], 1).astype("u1").tobytes()
    size = frames * 3 * 2 if fmt == "16" else frames * 9 // 2
    with (tmp_path / "day.dat").open("wb") as file:
        file.truncate(size)  # the rest is zeros that take no room on the disk
        file.seek(1000 * size // (24 * 3600))
        file.write(content)
    lines = "".join(f"day.dat {fmt} 200/mV 12 0 0 0 0 {lead}\n" for lead in ("EEG", "EOG", "ECG"))
    (tmp_path / "day.hea").write_text(f"day 3 {FS} {frames}\n{lines}")
    program = (
        "import sys; from ecg_shock.commands.app import main\n"
        "try: main()\n"
        "finally: print([line for line in open('/proc/self/status') if 'VmHWM' in line][0], file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "predict", str(tmp_path / "day"), "--start", "1000", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = Advisor().predict((digital[: 5 * FS, 2]) / 200, FS)
    assert found["lead"] == "ECG"
    assert found["probability"] == pytest.approx(expected.probability, abs=1e-4)
    peak_mb = int(done.stderr.split()[-2]) / 1024
    assert peak_mb <= 150
