"""Comparisons train in pairs, resume, refuse changes, and see no test label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from matplotlib.image import imread

from ecg_shock.commands.compare import _show_results
from ecg_shock.data import datasets
from ecg_shock.data.windows import WindowSet
from ecg_shock.search.compare import Decision, read_comparison
from ecg_shock.search.compare_curves import read_curves
from ecg_shock.search.compare_results import choose, summarise
from ecg_shock.search.compare_trainings import (
    RESULT_NAME,
    TrialResult,
    _checks,
    read_results,
    run_comparison,
    trial_folder,
)
from ecg_shock.training.fold import load_fold

CONTENT = {
    "name": "small",
    "folds": [0, 1],
    "seeds": [3],
    "rule": "the higher balanced accuracy",
    "levels": [0.6],
    "base": {
        "data": {"databases": ["synthetic"]},
        "network": {"filters": [6, 6], "kernels": [9, 9], "pool": 4},
        "training": {"epochs": 3, "learning_rate": 0.01},
    },
    "variants": [
        {"name": "drawn", "training": {"schedule": "cosine", "augmentation": {"windows": 256, "warp": 0.1}}},
        {"name": "wide", "after": "drawn", "network": {"filters": [8, 8]}, "training": {"augmentation": {"gain": 2.0}}},
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write the comparison."""
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(CONTENT), encoding="utf-8")
    return path


def test_changes_are_merged_from_the_variant_before(file: Path) -> None:
    """A variant keeps what the one before it has, and changes single fields of nested tables."""
    wide = read_comparison(file).settings("wide")
    assert tuple(wide.network.filters) == (8, 8)
    assert wide.network.pool == 4
    assert wide.training.augmentation is not None
    assert (wide.training.augmentation.warp, wide.training.augmentation.gain) == (0.1, 2.0)
    assert read_comparison(file).settings("base").training.augmentation is None


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "tuning" / "comparisons").glob("*.toml")), ids=str)
def test_our_comparisons_are_valid(path: Path) -> None:
    """Every setting in the comparisons of this checkout can be read, and all present as many windows."""
    comparison = read_comparison(path)
    trainings = [comparison.settings(name).training for name in comparison.names]
    if path.stem.startswith("sampling"):
        assert {training.epochs * training.every_second.windows for training in trainings} == {1_200_000}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": ""}, "rule"),
        ({"variants": [{"name": "a"}, {"name": "a"}]}, "two variants have the name 'a'"),
        ({"variants": [{"name": "a", "after": "b"}, {"name": "b"}]}, "'a' comes after 'b'"),
        ({"variants": [{"name": "a", "training": {"epocs": 3}}]}, r"\[training\] of 'a': epocs"),
        ({"base": {}}, r"\[network\] of 'base': filters is missing"),
        ({"variants": [{"name": "../a"}]}, "name"),
        ({"levels": [0.97, 0.95]}, "each must be above the one before"),
    ],
)
def test_mistakes_are_errors(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """An error names the file and the fault, before anything is trained."""
    path = tmp_path / "wrong.toml"
    path.write_text(tomli_w.dumps(CONTENT | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        read_comparison(path)
    assert str(path) in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"there is no comparison nothing\.toml"):
        read_comparison(Path("nothing.toml"))


def test_a_comparison_resumes(
    file: Path, tmp_path: Path, inline_engine: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is done is not trained again, and no test label matters."""
    comparison, folder = read_comparison(file), tmp_path / "run"
    trained: list[str] = []

    def on_trial(result: TrialResult) -> None:
        trained.append(f"{result.name} {result.fold}")
        if len(trained) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_comparison(comparison, folder, inline_engine, on_trial=on_trial)
    assert trained == ["base 0", "drawn 0", "wide 0", "base 1", "drawn 1"]
    before = {(result.name, result.fold): result for result in read_results(comparison, folder)}

    # Other test labels, everything trained again: nothing that is chosen may change.
    load = datasets._load_known

    def with_other_test_labels(*arguments: object) -> tuple[object, WindowSet]:
        fold, windows = load(*arguments)  # type: ignore[arg-type]
        tested = np.isin(windows.patient, sorted(fold.test))
        windows.aha_class[tested] = np.where(windows.aha_class[tested] == "coarse_vf", "normal_sinus", "coarse_vf")
        return fold, windows

    monkeypatch.setattr(datasets, "_load_known", with_other_test_labels)
    load_fold.cache_clear()
    _checks.cache_clear()
    run_comparison(comparison, folder, inline_engine, on_trial=on_trial)
    assert trained[5:] == ["wide 1"]
    again = tmp_path / "again"
    run_comparison(comparison, again, inline_engine)
    for result in read_results(comparison, again):
        if (result.name, result.fold) in before:
            assert result.balanced_accuracy == before[result.name, result.fold].balanced_accuracy

    # Whatever the scores, the first variant within the tolerance is chosen; without tolerance, the best.
    scores = {
        name: np.mean(
            [[*r.balanced_accuracy.values()] for r in read_results(comparison, folder) if (r.name, r.fold) == (name, 0)]
        )
        for name in comparison.names
    }
    assert choose(comparison, folder)[0] == max(scores, key=scores.__getitem__)
    tolerant = comparison.model_copy(update={"decision": Decision(tolerance=0.999)})
    assert choose(tolerant, folder) == {0: "base", 1: "base"}
    assert choose(comparison, tmp_path / "nothing") == {}

    summaries = {summary.name: summary for summary in summarise(comparison, folder)}
    assert summaries["base"].gain is None
    wide = summaries["wide"]
    assert wide.trainings == 2
    assert wide.gain is not None
    assert wide.interval is not None
    assert wide.interval[0] <= wide.gain <= wide.interval[1]

    # The curves are the histories of the trainings, with whole batches.
    curves = read_curves(comparison, folder)
    drawn = curves["drawn"][1, 3]
    np.testing.assert_array_equal(drawn.evaluations, [256, 512, 768])
    history = json.loads((trial_folder(folder, "drawn", 1, 3) / "history.json").read_text(encoding="utf-8"))
    assert drawn.balanced_accuracy.tolist() == [epoch["balanced_accuracy"] for epoch in history["epochs"]]

    # The command prints the rule and all tables, and writes the numbers and a plot.
    _show_results(comparison, folder)
    printed = capsys.readouterr().out
    assert printed.startswith("rule of decision: the higher balanced accuracy")
    assert max(map(len, printed.splitlines())) <= 80 + len(str(folder)) * 2
    content = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in content["summaries"]] == ["base", "drawn", "wide"]
    assert {(row["name"], row["level"], row["cost"]) for row in content["speed_ups"]} == {
        (name, 0.6, cost) for name in ("drawn", "wide") for cost in ("evaluations", "seconds")
    }
    assert len(content["curves"]) == 6
    assert imread(folder / "curves.png").std() > 0.01

    with pytest.raises(ValueError, match=r"rule: 'the higher balanced accuracy' in the folder, 'the lower' now"):
        run_comparison(comparison.model_copy(update={"rule": "the lower"}), folder, inline_engine)

    path = trial_folder(folder, "wide", 0, 3) / RESULT_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    content["settings"]["training"]["epochs"] = 4
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"training.epochs: 4 in the folder, 3 now"):
        run_comparison(comparison, folder, inline_engine)
