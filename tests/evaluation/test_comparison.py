"""Comparisons of two algorithms, counted window by window and drawn patient by patient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ecg_shock.evaluation.comparison import Difference, compare_predictions, mcnemar
from ecg_shock.evaluation.metrics import evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.rhythms import INTERMEDIATE, NONSHOCKABLE, SHOCKABLE

N = 3000


@pytest.fixture
def pair(make_predictions: Callable[..., Predictions], rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Two algorithms on 3000 windows; the second decides differently on a tenth, mostly in some patients."""
    first = make_predictions(N)
    number = np.unique(first.patient, return_inverse=True)[1]
    flip = rng.random(N) < np.where(number % 4 == 0, 0.3, 0.04)
    return first, dataclasses.replace(first, shock=first.shock ^ flip)


def by_measure(first: Predictions, second: Predictions, **options: float) -> dict[str, Difference]:
    """Compare predictions of one duration."""
    (comparison,) = compare_predictions(first, second, **options)
    return {difference.measure: difference for difference in comparison.differences}


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (0, 7), (3, 3), (2, 10), (11, 4), (40, 60), (600, 500)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    """The p-value is SciPy's for a fair coin, and the sum over its distribution; exchanging both changes nothing."""
    if b + c:
        assert mcnemar(b, c) == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue, rel=1e-9)
    n, k = b + c, min(b, c)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_refuses_negative_counts() -> None:
    """A negative count is named."""
    with pytest.raises(ValueError, match="only_first is -1 and only_second is 2"):
        mcnemar(-1, 2)


def test_counts_are_what_a_loop_counts(pair: tuple[Predictions, Predictions]) -> None:
    """Counts and proportions agree with a loop over windows; BAC is the mean."""
    first, second = pair
    found = by_measure(first, second)
    assert list(found) == ["Se", "Sp", "BAC"]
    for measure, classes, right in (("Se", SHOCKABLE, True), ("Sp", NONSHOCKABLE, False)):
        rows = [i for i in range(N) if first.aha_class[i] in classes]
        difference = found[measure]
        assert (difference.windows, difference.patients) == (len(rows), len({first.patient[i] for i in rows}))
        assert difference.only_first == sum(first.shock[i] == right != second.shock[i] for i in rows)
        assert difference.only_second == sum(second.shock[i] == right != first.shock[i] for i in rows)
        assert difference.first == pytest.approx(np.mean([first.shock[i] == right for i in rows]))
        assert difference.second == pytest.approx(np.mean([second.shock[i] == right for i in rows]))
        assert difference.p_value == mcnemar(difference.only_first, difference.only_second)
    for name in ("first", "second", "difference"):
        mean = (getattr(found["Se"], name) + getattr(found["Sp"], name)) / 2
        assert getattr(found["BAC"], name) == pytest.approx(mean)
    for difference in found.values():
        assert difference.difference == pytest.approx(difference.second - difference.first)
    assert found["BAC"].p_value is None
    performances = [evaluate(predictions).performances[0] for predictions in pair]
    assert [found["BAC"].first, found["BAC"].second] == pytest.approx(
        [performance.balanced_accuracy.observed for performance in performances]
    )


def test_limits_are_those_of_drawing_patients(pair: tuple[Predictions, Predictions]) -> None:
    """A loop that resamples patients gives about the same limits."""
    first, second = pair
    rng = np.random.default_rng(1)
    patients = np.unique(first.patient)
    rows_of = [np.flatnonzero(first.patient == patient) for patient in patients]
    shockable, nonshockable = (np.isin(first.aha_class, classes) for classes in (SHOCKABLE, NONSHOCKABLE))
    drawn: dict[str, list[float]] = {"Se": [], "Sp": [], "BAC": []}
    for _ in range(3000):
        rows = np.concatenate([rows_of[i] for i in rng.integers(len(patients), size=len(patients))])
        se = second.shock[rows][shockable[rows]].mean() - first.shock[rows][shockable[rows]].mean()
        sp = first.shock[rows][nonshockable[rows]].mean() - second.shock[rows][nonshockable[rows]].mean()
        for measure, value in (("Se", se), ("Sp", sp), ("BAC", (se + sp) / 2)):
            drawn[measure].append(value)
    for measure, difference in by_measure(first, second).items():
        lower, upper = np.quantile(drawn[measure], (0.05, 0.95))
        assert difference.lower_limit == pytest.approx(lower, abs=0.01)
        assert difference.upper_limit == pytest.approx(upper, abs=0.01)
        assert difference.lower_limit < difference.difference < difference.upper_limit


def test_identical_predictions_differ_by_exactly_nothing(make_predictions: Callable[..., Predictions]) -> None:
    """The difference of an algorithm from itself and both its limits are 0, and the p-value is 1."""
    predictions = make_predictions(300)
    for difference in by_measure(predictions, predictions).values():
        assert difference.difference == difference.lower_limit == difference.upper_limit == 0
        assert difference.only_first == difference.only_second == 0
        assert difference.p_value == (None if difference.measure == "BAC" else 1)


def repeated(predictions: Predictions, m: int) -> Predictions:
    """Repeat every window m times, as if from m leads."""
    columns = {field.name: np.tile(getattr(predictions, field.name), m) for field in dataclasses.fields(predictions)}
    return Predictions(**{**columns, "lead": np.repeat([f"lead {k}" for k in range(m)], len(predictions))})


def test_duplicated_windows_do_not_move_the_limits(pair: tuple[Predictions, Predictions]) -> None:
    """Repeated windows do not change the limits by patient, while McNemar's p wrongly falls."""
    once = by_measure(*pair)
    for m in (2, 5):
        often = by_measure(*(repeated(predictions, m) for predictions in pair))
        for measure, difference in once.items():
            again = often[measure]
            assert (again.lower_limit, again.upper_limit) == (difference.lower_limit, difference.upper_limit)
            assert again.difference == pytest.approx(difference.difference)
        assert often["Sp"].p_value < once["Sp"].p_value


def test_order_and_side_do_not_matter(pair: tuple[Predictions, Predictions], rng: np.random.Generator) -> None:
    """Shuffled windows give the same differences, and exchanged algorithms their negatives."""
    first, second = pair
    order = rng.permutation(N)
    shuffled = Predictions(**{field.name: getattr(second, field.name)[order] for field in dataclasses.fields(second)})
    assert compare_predictions(first, shuffled) == compare_predictions(first, second)
    swapped = by_measure(second, first)
    for measure, difference in by_measure(first, second).items():
        assert swapped[measure].difference == pytest.approx(-difference.difference)
        assert swapped[measure].lower_limit == pytest.approx(-difference.upper_limit, abs=0.01)
        assert swapped[measure].p_value == difference.p_value


def test_intermediate_windows_play_no_part(pair: tuple[Predictions, Predictions]) -> None:
    """Fine VF and other VT do not change the differences, except for the random draws."""
    clear = [predictions.select(~np.isin(predictions.aha_class, INTERMEDIATE)) for predictions in pair]
    without = by_measure(*clear)
    for measure, difference in by_measure(*pair).items():
        assert without[measure].windows == difference.windows
        assert without[measure].difference == difference.difference


def test_durations_and_groups_stay_apart(make_predictions: Callable[..., Predictions]) -> None:
    """Each duration is compared separately; with one group only there is no balanced accuracy."""
    short, long = make_predictions(80, 3.0), make_predictions(80, 8.0)
    joined = Predictions.concatenate([long, short])
    flipped = dataclasses.replace(joined, shock=~joined.shock)
    found = compare_predictions(joined, flipped, seed=4, alpha=0.2)
    assert [(comparison.duration_s, comparison.seed, comparison.alpha) for comparison in found] == [
        (3.0, 4, 0.2),
        (8.0, 4, 0.2),
    ]
    assert found[0] == compare_predictions(short, dataclasses.replace(short, shock=~short.shock), seed=4, alpha=0.2)[0]
    vf = short.select(np.isin(short.aha_class, SHOCKABLE))
    assert list(by_measure(vf, vf)) == ["Se"]
    assert compare_predictions(*[short.select(np.isin(short.aha_class, INTERMEDIATE))] * 2)[0].differences == ()


def test_a_single_patient_has_no_limits(make_predictions: Callable[..., Predictions]) -> None:
    """With one patient there is a difference without limits."""
    predictions = make_predictions(100)
    alone = dataclasses.replace(predictions, patient=np.full(100, "p"), fold=np.zeros(100, int))
    for difference in by_measure(alone, dataclasses.replace(alone, shock=~alone.shock)).values():
        assert difference.patients == 1
        assert difference.lower_limit is difference.upper_limit is None


def test_other_windows_are_refused(make_predictions: Callable[..., Predictions]) -> None:
    """A missing window, another patient, another class and empty predictions are errors that name them."""
    predictions = make_predictions(20)
    fewer = predictions.select(np.arange(20) != 7)
    name = f"record '{predictions.record[7]}'.*, {predictions.start_s[7]:g} s, 5 s"
    with pytest.raises(
        ValueError, match=f"the second predictions lack 1 windows of the other predictions, such as .*{name}"
    ):
        compare_predictions(predictions, fewer)
    with pytest.raises(
        ValueError, match=f"the first predictions lack 1 windows of the other predictions, such as .*{name}"
    ):
        compare_predictions(fewer, predictions)
    other = np.where(predictions.record == predictions.record[0], "p", predictions.patient)
    patients = dataclasses.replace(predictions, patient=other)
    with pytest.raises(ValueError, match=f"the patient '{predictions.patient[0]}' in the first predictions and 'p'"):
        compare_predictions(predictions, patients)
    classes = np.where(predictions.rhythm == "vf", "fine_vf", predictions.aha_class)
    coarse = np.where(predictions.rhythm == "vf", "coarse_vf", predictions.aha_class)
    assert (classes != coarse).any()
    with pytest.raises(ValueError, match="the aha_class 'fine_vf' in the first predictions and 'coarse_vf'"):
        compare_predictions(*(dataclasses.replace(predictions, aha_class=column) for column in (classes, coarse)))
    nothing = predictions.select(np.zeros(20, bool))
    with pytest.raises(ValueError, match="no predictions"):
        compare_predictions(nothing, nothing)
    with pytest.raises(ValueError, match="resamples is 5"):
        compare_predictions(predictions, predictions, resamples=5)
