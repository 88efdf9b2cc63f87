"""The search space: its size, its limits, and the network of Keras Tuner's values."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from ecg_shock.search.space import SearchSpace


def test_size_counts_every_network():
    """The size equals the number of networks listed one by one."""
    space = SearchSpace(blocks=(1, 3), filters=(5, 10), kernels=(10, 20), step=5)
    block = list(itertools.product((5, 10), (10, 15, 20)))
    assert space.size() == sum(len(list(itertools.product(block, repeat=depth))) for depth in (1, 2, 3))


def test_values_become_a_network():
    """Values belong to the block they are named after; values of further blocks are ignored."""
    space = SearchSpace(dropout=0.25, padding="valid")
    values = {"blocks": 2, "filters_1": 20, "kernel_1": 10, "filters_2": 15, "kernel_2": 5, "filters_3": 50}
    spec = space.spec_from(values, input_samples=500)
    assert (spec.filters, spec.kernels) == ((20, 15), (10, 5))
    assert (spec.dropout, spec.padding, spec.input_samples) == (0.25, "valid", 500)


def test_impossible_network_is_an_error():
    """A network that does not fit the window is an error."""
    values = {"blocks": 7} | {f"{name}_{b}": 100 for name in ("filters", "kernel") for b in range(1, 8)}
    with pytest.raises(ValueError, match="block"):
        SearchSpace(padding="valid").spec_from(values, input_samples=625)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blocks": (3, 1)}, "first limit"),
        ({"blocks": (1, 8)}, "at most 7"),
        ({"filters": (5, 52)}, "multiples of step"),
        ({"kernels": (0, 50)}, "greater than 0"),
        ({"kernel": (5, 50)}, "not permitted"),
    ],
)
def test_wrong_limits_are_refused(wrong: dict, message: str):
    """Each wrong limit is an error that says what is wrong."""
    with pytest.raises(ValidationError, match=message):
        SearchSpace(**wrong)
