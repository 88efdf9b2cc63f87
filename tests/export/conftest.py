"""A small trained bundle and its exports, made once for all tests of this folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_shock import Advisor
from ecg_shock.data.datasets import DataConfig, Subsets, load_subsets, shockable
from ecg_shock.export import rescoring
from ecg_shock.export.export import ExportResult, export
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import Bundle, write_bundle

SPEC = CnnSpec(filters=(8, 8, 8), kernels=(10, 8, 8), input_samples=250, dropout=0.0)
CONFIG = DataConfig(databases=("synthetic",), window_s=2.0)


@pytest.fixture(scope="module", autouse=True)
def _few_windows() -> Iterator[None]:
    """Allow int8 a change of 2 points in Se and Sp, since one of the few synthetic windows is 0.7 points."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(rescoring.INT8_LIMITS, "sensitivity_change", 0.02)
        patch.setitem(rescoring.INT8_LIMITS, "specificity_change", 0.02)
        yield


@pytest.fixture(scope="session")
def subsets() -> Subsets:
    """Return synthetic windows of 2 s."""
    return load_subsets(CONFIG)


@pytest.fixture(scope="session")
def write(subsets: Subsets) -> Callable[..., Bundle]:
    """Write bundles with the card of a training on the synthetic recordings."""
    card = {
        "name": "tiny </script> \u2028 one",
        "synthetic": True,
        "commit": "0123abc",
        "data": CONFIG.model_dump(mode="json", exclude_none=True),
        "training": {},
        "patients": {
            subset: sorted(set(getattr(subsets, subset).patient.tolist())) for subset in ("train", "validation", "test")
        },
    }

    def write_one(folder: Path, network: Any, spec: CnnSpec, threshold: float = 0.5) -> Bundle:
        return write_bundle(
            folder, network, spec=spec, preprocessing=CONFIG.preprocessing, threshold=threshold, card=card
        )

    return write_one


@pytest.fixture(scope="session")
def bundle(subsets: Subsets, write: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Write a small bundle, trained for seconds, with its threshold in a wide gap between validation windows.

    As in a fully trained network, few decisions then depend on rounding.
    """
    import keras

    keras.utils.set_random_seed(0)  # of the order of the windows
    network = build_model(SPEC, seed=1)
    network.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    ecg, truth = subsets.train.ecg[:, :, np.newaxis], shockable(subsets.train).astype(np.float32)
    network.fit(ecg, truth, batch_size=64, epochs=20, verbose=0)
    folder = tmp_path_factory.mktemp("tiny") / "bundle"
    probability = np.sort(Advisor(write(folder, network, SPEC)).probabilities(subsets.validation.ecg))
    middle = probability[len(probability) // 4 : 3 * len(probability) // 4]
    middle = np.log(middle / (1 - middle))
    widest = np.argmax(np.diff(middle))
    threshold = 1 / (1 + math.exp(-middle[widest : widest + 2].mean()))
    return write(folder, network, SPEC, threshold)


@pytest.fixture(scope="session")
def exports(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportResult]:
    """Export the small bundle once to each requested format."""

    @cache
    def export_once(to: str) -> ExportResult:
        return export(bundle, to, tmp_path_factory.mktemp(to))

    return export_once
