"""A network has the size and the layers that its specification says, and wrong values are errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ecg_shock.models import CnnSpec, build_model

PUBLISHED = {"filters": (20, 15, 15, 10, 5), "kernels": (10,) * 5}


@pytest.mark.parametrize(("samples", "macs"), [(250, 618_505), (625, 1_548_505), (1250, 3_100_005)])
def test_published_network_costs_what_the_paper_says(samples, macs):
    """The published network has 7521 parameters at any length, and the right multiply-adds at 2, 5 and 10 s."""
    spec = CnnSpec(**PUBLISHED, input_samples=samples)
    assert spec.parameter_count() == 7521
    assert spec.macs() == macs


@pytest.mark.parametrize("global_pool", ["max", "max+average"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_counts_agree_with_the_built_network(padding, global_pool, rng):
    """Parameters and multiply-adds equal those counted on Keras's layers, for networks of every depth."""
    for blocks in range(1, 6):
        spec = CnnSpec(
            filters=rng.integers(1, 6, blocks),
            kernels=rng.integers(1, 9, blocks),
            pool=int(rng.integers(2, 4)),
            padding=padding,
            input_samples=1250,
            global_pool=global_pool,
        )
        model = build_model(spec)
        macs = sum(
            int(np.prod(layer.kernel.shape)) * (layer.output.shape[1] if layer.name.startswith("conv") else 1)
            for layer in model.layers
            if hasattr(layer, "kernel")
        )
        assert spec.parameter_count() == model.count_params()
        assert spec.macs() == macs


def test_layers_are_those_of_the_paper():
    """There are 3 N + 2 hidden layers and one sigmoid output, and the result is a probability."""
    model = build_model(CnnSpec(**PUBLISHED))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", *["Conv1D", "MaxPooling1D", "Dropout"] * 5, "GlobalMaxPooling1D", "Dense"]
    probability = model(np.random.default_rng(0).normal(size=(3, 625, 1)))
    assert probability.shape == (3, 1)
    assert np.all((probability > 0) & (probability < 1))


@pytest.mark.parametrize("samples", [250, 625, 1250])
def test_average_is_over_the_whole_window(samples):
    """A constant feature is its own maximum and average; one that is 1 for 50 samples averages to their proportion."""
    model = build_model(CnnSpec(filters=(2,), kernels=(1,), input_samples=samples, global_pool="max+average"))
    # The first filter is 3 at all times, the second repeats the window; the logit is 10 max1 + 20 max2 + avg1 - 5 avg2.
    weights = [[[[0.0, 1.0]]], [3.0, 0.0], [[10.0], [20.0], [1.0], [-5.0]], [-50.0]]
    model.set_weights([np.array(values) for values in weights])
    ecg = np.zeros((1, samples, 1), np.float32)
    ecg[0, 100:150] = 1.0
    logit = 10 * 3 + 20 * 1 + 3 - 5 * 25 / (samples // 2) - 50
    assert float(model(ecg)[0, 0]) == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)


def test_valid_padding_needs_311_samples():
    """The published network with valid padding takes 311 samples and no fewer; the error names the last block."""
    assert CnnSpec(**PUBLISHED, padding="valid", input_samples=311)
    with pytest.raises(ValueError, match=r"block 5 of 5 .* its input has 10,.*leaves 1.*padding 'same'"):
        CnnSpec(**PUBLISHED, padding="valid", input_samples=310)


def test_too_many_pools_say_which_block_fails():
    """A window that is too short for all poolings is an error that names the first block without output."""
    with pytest.raises(
        ValueError, match=r"block 4 of 7 .*in a window of 250 samples its input has 2,.*pooling by 5 needs 5"
    ):
        CnnSpec(filters=(5,) * 7, kernels=(5,) * 7, pool=5, input_samples=250)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"filters": ()}, ValueError, "1 to 7 blocks"),
        ({"filters": (5,) * 8, "kernels": (5,) * 8}, ValueError, "1 to 7 blocks"),
        ({"kernels": (10,) * 4}, ValueError, "differ in length"),
        ({"filters": (20, 15, 15, 10, 0)}, ValueError, "1 or more"),
        ({"filters": (20, 15, 15, 10, 5.0)}, TypeError, "integer"),
        ({"filters": (20, 15, 15, 10, True)}, TypeError, "integer"),
        ({"kernels": 10}, TypeError, "sequence"),
        ({"pool": 1}, ValueError, "2 or more"),
        ({"dropout": 1.0}, ValueError, "below 1"),
        ({"dropout": float("nan")}, ValueError, "below 1"),
        ({"padding": "causal"}, ValueError, "'same', 'valid'"),
        ({"activation": "swish"}, ValueError, "'relu'"),
        ({"global_pool": "average"}, ValueError, r"'max', 'max\+average'"),
        ({"input_samples": 249}, ValueError, "250 to 1250"),
        ({"input_samples": 1251}, ValueError, "250 to 1250"),
    ],
)
def test_wrong_values_are_refused(change, error, message):
    """A value out of its range is an error that says what is allowed."""
    with pytest.raises(error, match=message):
        CnnSpec(**{**PUBLISHED, **change})


def test_lists_and_tuples_give_the_same_spec():
    """A specification read from JSON or NumPy equals the one written in Python, and hashes alike."""
    from_json = CnnSpec(filters=[4, 2], kernels=list(np.array([5, 3])))
    assert from_json == CnnSpec(filters=(4, 2), kernels=(5, 3))
    assert len({from_json, CnnSpec(filters=(4, 2), kernels=(5, 3))}) == 1


def test_one_seed_gives_one_network(rng):
    """Two builds of one seed agree in weights and in dropout; another seed differs in both."""
    spec = CnnSpec(filters=(6, 4), kernels=(7, 5), dropout=0.5)
    ecg = rng.normal(size=(4, 625, 1)).astype(np.float32)
    first, same, other = build_model(spec, seed=3), build_model(spec, seed=3), build_model(spec, seed=4)
    for a, b in zip(first.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first(ecg, training=True), same(ecg, training=True))
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    other.set_weights(first.get_weights())
    np.testing.assert_array_equal(first(ecg), other(ecg))
    assert not np.array_equal(first(ecg, training=True), other(ecg, training=True))


def test_weights_of_one_length_load_into_another(rng):
    """Weights for 5 s load into networks for 2 and 10 s; more zeros after a beat do not change the output."""
    five = build_model(CnnSpec(**PUBLISHED, input_samples=625), seed=1)
    ten = build_model(CnnSpec(**PUBLISHED, input_samples=1250), seed=2)
    ten.set_weights(five.get_weights())
    build_model(CnnSpec(**PUBLISHED, input_samples=250), seed=2).set_weights(five.get_weights())

    beat = np.zeros((1, 1250, 1), np.float32)
    beat[0, 256:288, 0] = rng.normal(size=32)
    np.testing.assert_allclose(five(beat[:, :625]), ten(beat), rtol=1e-5)


def test_importing_the_description_does_not_load_keras():
    """Specifications, training configurations and samplers can be used without TensorFlow in memory."""
    code = (
        "import sys, ecg_shock.models, ecg_shock.training.trainer, ecg_shock.plots; "
        "ecg_shock.models.CnnSpec((5,), (5,)).macs(); "
        "sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
