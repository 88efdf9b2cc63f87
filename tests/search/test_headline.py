"""The script of the headline trains, chooses, evaluates and ships, on a small comparison of synthetic recordings."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ecg_shock.data.splits import load_split
from ecg_shock.evaluation.evaluation_set import EvaluationSet, find_bundles
from ecg_shock.models.bundle import load_bundle
from ecg_shock.report.formats import rounded_down
from ecg_shock.report.review import review_bundles

SCRIPT = Path(__file__).parents[2] / "tuning" / "results" / "headline" / "run.py"
COMPARISON = """
name = "small"
folds = [0, 1]
seeds = [0, 1]
rule = "the highest score"

[base.data]
databases = ["synthetic"]

[base.data.labels]
slow_vf_bpm = 150.0

[base.network]
filters = [4, 4]
kernels = [10, 10]
pool = 4

[base.training]
epochs = 1
calibrated = true

[[variants]]
name = "longer"

[variants.training]
epochs = 3
"""


@pytest.fixture
def script() -> ModuleType:
    """Load the script as a module."""
    spec = importlib.util.spec_from_file_location("headline", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_from_candidates_to_the_pretrained_model(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The networks of each fold are distilled into one, and the model of all patients quotes their results."""
    (tmp_path / "small.toml").write_text(COMPARISON)
    everyone = sorted(frozenset.union(*(fold.test for fold in load_split("synthetic-v1"))))
    (tmp_path / "all.toml").write_text(f"folds = [{json.dumps(everyone)}]")
    monkeypatch.setattr(script, "CANDIDATES", tmp_path / "small.toml")
    monkeypatch.setattr(script, "FINAL_SEEDS", (0, 1, 2))
    monkeypatch.setattr(script, "ALL_PATIENTS", str(tmp_path / "all.toml"))
    out = tmp_path / "run"

    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(out), "--pretrained"])
    with pytest.raises(FileNotFoundError, match="ecg-shock validate"):
        script.main()

    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(out)])
    script.main()
    assert (out / "trials.csv").read_text().count("\n") == 1 + 2 * 2 * 2
    bundles = find_bundles(out)
    assert [bundle.card.data.fold for bundle in bundles] == [0, 1]
    assert [bundle.card.training["seed"] for bundle in bundles] == [3, 3]
    assert "mean probability of 3 networks" in bundles[0].card.protocol
    assert (out / "final.csv").read_text().count("distilled") == 2

    evaluation = EvaluationSet(bundles)
    content = review_bundles(evaluation, out / "validation", quick=True)
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(out), "--pretrained"])
    script.main()
    card = load_bundle(out / "pretrained").card
    assert sorted(card.patients.train) == everyone
    assert card.expected
    five = next(at for at in content.validation.performances if at.duration_s == 5)
    assert f"balanced accuracy {rounded_down(five.balanced_accuracy.observed)} %" in card.expected["5 s"]
