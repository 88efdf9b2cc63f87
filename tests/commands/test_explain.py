"""`ecg-shock explain` measures what a network responds to, and writes a page, numbers and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ecg_shock import Importance, explain
from ecg_shock.commands.app import app
from ecg_shock.evaluation import importance
from ecg_shock.evaluation.patterns import standard_patterns
from ecg_shock.models.bundle import Bundle
from ecg_shock.report.importance import NAMES, describe_habits, signed, write_explanation
from ecg_shock.report.tables import SYNTHETIC_NOTE

CHOSEN = ("scaled rhythm", "ventricular 1 mV complexes", "chest compressions", "pacing spikes")
HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}\u202e$x_1$"


@pytest.fixture
def few_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test only some of the patterns, at three doses."""
    chosen = [
        replace(one, doses=tuple(sorted({one.doses[0], one.usual, one.doses[-1]})))
        for one in standard_patterns(folder=Path("nowhere"))
        if one.name in CHOSEN
    ]
    monkeypatch.setattr(importance, "standard_patterns", lambda labels, folder: tuple(chosen))


@pytest.mark.usefixtures("few_patterns")
def test_everything_is_written(synthetic_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    """The files hold the same result as the function, and what is printed fits on 80 columns."""
    bundle = synthetic_bundle()
    options = ["explain", str(bundle.folder), "--seed", "3", "--out", str(tmp_path / "out")]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[-1].endswith(f"out/{', '.join(NAMES)}")
    found = explain(bundle, seed=3)
    assert isinstance(found, Importance)
    written = json.loads((tmp_path / "out" / "explain.json").read_text(encoding="utf-8"))
    assert written["patients"] == list(found.patients)
    assert [r["effect"][1]["mean"] for r in written["responses"]] == [r.effect[1].mean for r in found.responses]
    text = " ".join(result.stdout.split())
    assert all(" ".join(sentence.split()) in text for sentence in describe_habits(found))
    assert f"of {len(found.patients)} test patients" in text
    assert "nstdb was not found" in text
    (row,) = (line for line in lines if line.startswith("pacing spikes, 2 mV"))
    assert row.split()[-4:] == [signed(r.importance.mean) for r in found.responses if r.pattern == "pacing spikes"]
    for name in NAMES[2:]:
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("few_patterns")
def test_page_is_self_contained_and_escapes(synthetic_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    """A hostile name of a model or patient stays text; the page loads nothing and holds every chart."""
    found = replace(explain(synthetic_bundle()), model=HOSTILE, patients=(HOSTILE,))
    write_explanation(found, tmp_path, HOSTILE)
    text = (tmp_path / "explain.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}\\u202e$x_1$") >= 4
    assert not re.findall(r'(?:src|href)="(?!#|data:,)', text)
    assert "default-src 'none'" in text
    assert text.count("<svg viewBox") == 1 + len({response.pattern for response in found.responses})
    assert SYNTHETIC_NOTE in text


def test_several_models_are_refused(synthetic_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    """One model is explained at a time, and the error names one."""
    for fold in (0, 1):
        (tmp_path / f"fold-{fold}").mkdir()
        synthetic_bundle(fold).folder.rename(tmp_path / f"fold-{fold}" / "bundle")
    result = CliRunner().invoke(app, ["explain", str(tmp_path)])
    assert result.exit_code == 1
    assert re.search("holds 2 models; give one of them, such as .*fold-0/bundle", result.stderr)


def test_changes_are_signed() -> None:
    """A change has its sign, and one that rounds to 0 has none."""
    assert [signed(x) for x in (1.234, -0.004, 0.0, -1.235)] == ["+1.23", "0.00", "0.00", "−1.24"]
