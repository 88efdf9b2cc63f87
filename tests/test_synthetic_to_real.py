"""What synthetic recordings are good for: a network that saw nothing else does better than chance on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecg_shock.data.datasets import DataConfig
from ecg_shock.evaluation.evaluation_set import EvaluationSet
from ecg_shock.evaluation.metrics import evaluate
from ecg_shock.models import CnnSpec
from ecg_shock.training.fold import TrainingFold
from ecg_shock.training.trainer import TrainingConfig


@pytest.mark.slow
@pytest.mark.recordings
def test_trained_on_synthetic_is_better_than_chance_on_real(recordings_dir: Path, tmp_path: Path) -> None:
    """The lower limit over patients of its balanced accuracy on vfdb and cudb, which it never saw, is above 60 %."""
    fold = TrainingFold.load(DataConfig(databases=("synthetic",), split="synthetic-v1"))
    config = TrainingConfig(epochs=25, batch_size=64, balanced=True)
    result = fold.train(CnnSpec((20, 15, 15, 10, 5), (10,) * 5), config, tmp_path / "run")
    bundle = fold.write_bundle(tmp_path / "bundle", "synthetic", result, selection="given")
    predictions = EvaluationSet((bundle,), ("vfdb", "cudb"), recordings_dir).predictions([5.0])
    (performance,) = evaluate(predictions).performances
    found = performance.balanced_accuracy
    print(f"trained on synthetic, evaluated on {found.patients} real patients: balanced accuracy {found.observed:.3f}")
    assert found.patient_limit > 0.6
