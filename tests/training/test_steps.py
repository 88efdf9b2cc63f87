"""The compiled forward pass computes the features and logits of a network for windows of any length."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from ecg_shock.models import CnnSpec, build_model
from ecg_shock.training.steps import last_layer_of


@pytest.mark.parametrize("samples", [250, 625, 1250])
@pytest.mark.parametrize("global_pool", ["max", "max+average"])
def test_features_and_logits_of_any_length(global_pool: str, samples: int, rng: np.random.Generator) -> None:
    """They are those of a network built for this length, with the weights of the one that is trained."""
    spec = CnnSpec(filters=(6, 5), kernels=(9, 5), pool=3, dropout=0.5, global_pool=global_pool)
    trained, model = build_model(spec, seed=2), build_model(replace(spec, input_samples=samples))
    last_layer = last_layer_of(trained)
    trained.set_weights([weights + 0.1 for weights in trained.get_weights()])  # trained further
    model.set_weights(trained.get_weights())
    ecg = rng.normal(size=(4, samples, 1)).astype(np.float32)
    logits, features = last_layer(ecg, training=False)
    blocks = np.asarray(keras.Model(model.input, model.get_layer("dropout_2").output)(ecg))
    pooled = [blocks.max(axis=1), blocks.mean(axis=1)][: 1 + (global_pool == "max+average")]
    np.testing.assert_allclose(features, np.concatenate(pooled, axis=1), rtol=1e-5)
    np.testing.assert_allclose(keras.ops.sigmoid(logits), np.asarray(model(ecg))[:, 0], rtol=1e-5)
    dropped = np.asarray(last_layer(ecg, training=True)[1])
    assert dropped.shape == features.shape == (4, spec.features)
    assert not np.allclose(dropped, features)
