"""`ecg_shock.validate`: the same figures from predictions, from a file and from a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ecg_shock
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation import evaluation_set as protocol
from ecg_shock.evaluation.metrics import Model, evaluate
from ecg_shock.evaluation.predictions import Predictions


def test_predictions_and_their_file_give_the_same_figures(
    make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    """A file gives the same results as its predictions, and is identified by its digest."""
    predictions = make_predictions(200)
    path = tmp_path / "other.csv"
    predictions.write_csv(path)
    from_file, given = ecg_shock.validate(str(path), seed=3), ecg_shock.validate(predictions, seed=3)
    assert from_file.performances == given.performances == evaluate(predictions, seed=3).performances
    assert given.source == ""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert from_file.source == f"other.csv, SHA-256 {digest[:12]}; shock advised by its column shock"
    assert isinstance(given, ecg_shock.Validation)


def test_threshold_decides_where_the_file_does_not(
    make_predictions: Callable[..., Predictions], tmp_path: Path
) -> None:
    """A file of probabilities is evaluated at the threshold, which the results name."""
    predictions = make_predictions(200)
    path = tmp_path / "other.csv"
    predictions.write_csv(path)
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    column = lines[0].index("shock")
    path.write_text("\n".join(",".join(line[:column] + line[column + 1 :]) for line in lines), encoding="utf-8")
    found = ecg_shock.validate(path, threshold=0.8).performances[0]
    shockable = np.isin(predictions.aha_class, ["coarse_vf", "rapid_vt"])
    assert found.tp == (predictions.probability[shockable] >= 0.8).sum()
    assert ecg_shock.validate(path, threshold=0.8).source.endswith("shock advised at 0.8 or above")
    with pytest.raises(ValueError, match="no column shock"):
        ecg_shock.validate(path)


def test_a_folder_is_a_model(
    make_predictions: Callable[..., Predictions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundles of a folder predict, and the results name them."""
    predictions = make_predictions(100)
    model = Model("m", "m", "public-v1", 0, "0" * 64, "", 10, 0.5, "")
    asked: list[Any] = []

    class Asked:
        def __init__(self, *arguments: Any) -> None:
            asked.append(arguments)

        def predictions_by_labels(self) -> dict[LabelPolicy, Predictions]:
            return {LabelPolicy(): predictions}

        def corrected(self) -> tuple[()]:
            return ()

    monkeypatch.setattr(protocol, "find_bundles", lambda folder: (f"bundle of {folder}",))
    monkeypatch.setattr(protocol, "describe_all", lambda bundles: (model,))
    monkeypatch.setattr(protocol, "EvaluationSet", Asked)
    found = ecg_shock.validate(tmp_path, databases=["cudb"], data="there")
    assert asked == [((f"bundle of {tmp_path}",), ("cudb",), Path("there"), None)]
    assert found == evaluate(predictions, models=(model,))


def test_options_of_other_kinds_are_refused(make_predictions: Callable[..., Predictions], tmp_path: Path) -> None:
    """Options that do not apply are refused, and so are predictions that cannot be read."""
    predictions = make_predictions(20)
    path = tmp_path / "other.csv"
    predictions.write_csv(path)
    with pytest.raises(ValueError, match="threshold cannot be given for Predictions"):
        ecg_shock.validate(predictions, threshold=0.5)
    with pytest.raises(ValueError, match="databases, data cannot be given for a file"):
        ecg_shock.validate(path, databases=["vfdb"], data=tmp_path)
    with pytest.raises(ValueError, match="threshold cannot be given for the folder of a model"):
        ecg_shock.validate(tmp_path, threshold=0.5)
    with pytest.raises(TypeError, match="predictions is of type list; allowed are"):
        ecg_shock.validate([0.5, 0.7])  # type: ignore[arg-type]
    with pytest.raises(OSError, match="nowhere"):
        ecg_shock.validate(tmp_path / "nowhere.csv")
    with pytest.raises(OSError, match="holds no bundle"):
        ecg_shock.validate(tmp_path)
    with pytest.raises(ValueError, match="no predictions"):
        ecg_shock.validate(predictions.select(np.zeros(20, bool)))


@pytest.mark.parametrize(("factor", "step_s"), [(1000, 5.0), (1000, 0.5), (125, 5.0)], ids=str)
def test_milliseconds_and_samples_are_no_seconds(factor: int, step_s: float, tmp_path: Path) -> None:
    """Starts in another unit are refused also where they stay below 48 h, unless a list of windows has them."""
    path = tmp_path / "other.csv"
    rows = [f"r{i % 3},p,{(i // 3) * step_s * factor:g},5,coarse_vf,1" for i in range(60)]
    text = "\n".join(["record,patient,start_s,duration_s,aha_class,shock", *rows])
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="as if start_s were in milliseconds or samples. Give seconds."):
        ecg_shock.validate(path)
    assert ecg_shock.validate(path, windows=path).performances[0].windows == 60
