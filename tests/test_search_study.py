"""Tests of tuning/results/search-study: what is recorded is read again, and replays cost what they must."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ecg_shock.search.trials import Trial

FOLDER = Path(__file__).parents[1] / "tuning" / "results" / "search-study"
NETWORKS, EPOCHS = 54, 9


@pytest.fixture
def load() -> Callable[[str], ModuleType]:
    """Load a script as a module."""

    def _load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"search_study_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return _load


def test_curves_are_read_as_they_were_recorded(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    """Complete and failed trials are read again; other epochs or windows are refused; the replay skips failed ones."""
    run, file = load("run"), tmp_path / "curves.csv"
    epochs = [{"epoch": epoch, **dict.fromkeys(run.RESULTS, 0.5 + epoch / 10)} for epoch in (1, 2)]
    (tmp_path / "history.json").write_text(repr({"epochs": epochs}).replace("'", '"'))
    common = {"filters": (5, 10), "kernels": (5, 5), "learning_rate": 1e-3, "seed": 0, "parameters": 61, "macs": 1000}
    trials = [Trial(name="0001", **common), Trial(name="0000", error='ValueError: "a", b', **common)]
    run.write_curves(file, {trial.name: run.rows_of(trial, tmp_path, 640, "abc") for trial in trials})
    curves = run.read_curves(file, 2, "abc")
    assert {name: len(rows) for name, rows in curves.items()} == {"0000": 1, "0001": 2}
    assert curves["0000"][0]["error"] == "ValueError: 'a'; b"
    content = file.read_bytes()
    run.write_curves(file, curves)
    assert file.read_bytes() == content
    with pytest.raises(ValueError, match="trial 0001 has 2 epochs, not 20"):
        run.read_curves(file, 20, "abc")
    with pytest.raises(ValueError, match="trial 0000 has windows abc, not xyz"):
        run.read_curves(file, 2, "xyz")
    values, costs = load("replay").read_curves(file)
    assert values.tolist() == [[0.6, 0.7]]
    assert costs.tolist() == [640_000]


def test_replays_cost_what_they_train(load: Callable[[str], ModuleType], rng: np.random.Generator) -> None:
    """With equal costs, the computation of each strategy is a known number of epochs, and only its epochs are seen."""
    replay = load("replay")
    curves, costs = np.sort(rng.uniform(0.5, 1, (NETWORKS, EPOCHS))), np.full(NETWORKS, 7.0)
    order = rng.permutation(NETWORKS)
    steps = {name: replay.replay(strategy, curves, costs, order) for name, strategy in replay.STRATEGIES.items()}
    assert steps["random"][0][-1] == pytest.approx(1)
    assert steps["random"][1][-1] == curves.max()
    # 27 networks for 1 epoch, 9 for 1 (the rungs are 1, 1, 3 and 9 epochs: the second adds none), 3 to 3, and 1 to 9.
    assert steps["halving"][0][-1] == pytest.approx(2 * (27 + 3 * 2 + 6) / (NETWORKS * EPOCHS))
    assert 5 / 9 < steps["median rule"][0][-1] < 1
    assert 0.3 < steps["hyperband"][0][-1] < 0.8
    for spent, best in steps.values():
        assert (np.diff(spent) > 0).all()
        assert replay.cost_to(spent, best, best[-1]) <= spent[-1]
        assert replay.cost_to(spent, best, 1.1) == np.inf
        low, middle, high = replay.bands([(spent, best)])
        np.testing.assert_array_equal(low, high)
        assert middle[-1] == best[-1]
    found = replay.ratios([steps["random"]] * 20, curves, costs, NETWORKS, seed=0)
    np.testing.assert_allclose(found, replay.cost_to(*steps["random"], curves.max()))
