"""The fully convolutional network of Krasteva et al. [1]_: its specification, its size, and its Keras model.

References
----------
.. [1] Krasteva, Ménétré, Didon, Jekova, "Fully Convolutional Deep Neural Networks with Optimized Hyperparameters
   for Detection of Shockable and Non-Shockable Rhythms", Sensors 20(10):2875, 2020, doi:10.3390/s20102875
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.quiet import without_lines

if TYPE_CHECKING:
    import keras

MAX_BLOCKS = 7  # Krasteva 2020: depths 1 to 7
MIN_INPUT_SAMPLES = 250  # 2 s at 125 Hz, the shortest window of Krasteva 2020
MAX_INPUT_SAMPLES = 1250  # 10 s at 125 Hz, the longest
PADDINGS = ("same", "valid")
ACTIVATIONS = ("relu", "elu", "selu", "tanh")
GLOBAL_POOLS = ("max", "max+average")


@dataclass(frozen=True)
class CnnSpec:
    """The specification of a network of convolution blocks.

    Each block consists of Conv1D, max-pooling and dropout. The last block is followed by global pooling and a sigmoid
    unit.

    Parameters
    ----------
    filters : sequence of int
        Number of filters of each block, from the first to the last; 1 to 7 blocks.
    kernels : sequence of int
        Kernel length of each block, in samples.
    pool : int
        Size and stride of each max-pooling in samples, at least 2.
    dropout : float
        Proportion of the activations dropped after each pooling while training, in [0, 1).
    padding : {"same", "valid"}
        Padding of the convolutions. Max-pooling has no padding, and ignores an incomplete last pool.
    activation : {"relu", "elu", "selu", "tanh"}
        Activation of the convolutions.
    input_samples : int
        Number of samples in a window at 125 Hz, 250 to 1250 (2 to 10 s).
    global_pool : {"max", "max+average"}
        Input of the sigmoid unit from each filter of the last block: the maximum over time, or the maximum and the
        average over time.

    Raises
    ------
    TypeError
        If `filters`, `kernels`, `pool` or `input_samples` has a value that is not an integer.
    ValueError
        If a value is out of its range, or if the window is too short for the blocks.

    Notes
    -----
    Deviations from the paper, Krasteva et al. 2020:

    - The paper does not state padding, activation, loss and optimiser. The padding is probably "same": with "valid",
      the published network needs at least 311 samples, but the paper also validates windows of 2 s, or 250 samples.
    - The output of the sigmoid is the probability of *shockable*.
    - The `global_pool` "max+average" is not in the paper.

    Examples
    --------
    >>> spec = CnnSpec(filters=(20, 15, 15, 10, 5), kernels=(10,) * 5)
    >>> spec.parameter_count(), spec.macs()
    (7521, 1548505)
    """

    filters: Sequence[int]
    kernels: Sequence[int]
    pool: int = 2
    dropout: float = 0.3
    padding: str = "same"
    activation: str = "relu"
    input_samples: int = 625
    global_pool: str = "max"

    def __post_init__(self) -> None:
        # Lists, such as those from JSON and TOML, become tuples, so that the specification can be hashed.
        object.__setattr__(self, "filters", _as_positive_integers("filters", self.filters))
        object.__setattr__(self, "kernels", _as_positive_integers("kernels", self.kernels))
        object.__setattr__(self, "pool", _as_integer("pool", self.pool))
        object.__setattr__(self, "input_samples", _as_integer("input_samples", self.input_samples))
        if not 1 <= len(self.filters) <= MAX_BLOCKS:
            raise ValueError(
                f"filters has {len(self.filters)} values, one for each block; allowed are 1 to {MAX_BLOCKS} blocks"
            )
        if len(self.filters) != len(self.kernels):
            raise ValueError(
                f"filters {self.filters!r} and kernels {self.kernels!r} differ in length; give one value for each block"
            )
        if self.pool < 2:
            raise ValueError(f"pool is {self.pool!r}; it must be 2 or more")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; it must be at least 0 and below 1")
        if self.padding not in PADDINGS:
            raise ValueError(f"padding is {self.padding!r}; it must be one of {PADDINGS}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; it must be one of {ACTIVATIONS}")
        if self.global_pool not in GLOBAL_POOLS:
            raise ValueError(f"global_pool is {self.global_pool!r}; it must be one of {GLOBAL_POOLS}")
        if not MIN_INPUT_SAMPLES <= self.input_samples <= MAX_INPUT_SAMPLES:
            raise ValueError(
                f"input_samples is {self.input_samples!r}; allowed are {MIN_INPUT_SAMPLES} to {MAX_INPUT_SAMPLES} "
                "(2 to 10 s at 125 Hz)"
            )
        self._convolved_lengths()

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters for TOML or JSON.

        A `global_pool` of "max" is omitted, so that older versions, which lack this parameter, can read the network.
        """
        network = asdict(self)
        if self.global_pool == "max":
            del network["global_pool"]
        return network

    @property
    def features(self) -> int:
        """Number of inputs of the sigmoid unit."""
        return self.filters[-1] * len(self.global_pool.split("+"))

    def parameter_count(self) -> int:
        """Count the trainable parameters: weights and biases of all convolutions and of the sigmoid unit."""
        inputs = (1, *self.filters[:-1])
        convolutions = sum((k * c + 1) * f for k, c, f in zip(self.kernels, inputs, self.filters, strict=True))
        return convolutions + self.features + 1

    def macs(self) -> int:
        """Count the multiply-adds for one window, in the convolutions (including padding) and the sigmoid unit."""
        inputs = (1, *self.filters[:-1])
        blocks = zip(self._convolved_lengths(), self.kernels, inputs, self.filters, strict=True)
        return sum(n * k * c * f for n, k, c, f in blocks) + self.features

    def _convolved_lengths(self) -> list[int]:
        """Return the output length of each convolution in samples; raise ValueError if a pooling has no output."""
        lengths = []
        samples = self.input_samples
        for block, kernel in enumerate(self.kernels, start=1):
            convolved = samples if self.padding == "same" else max(samples - kernel + 1, 0)
            if convolved < self.pool:
                remedies = "use a smaller pool, fewer blocks or a longer window"
                if self.padding == "valid":
                    remedies = f"use padding 'same', shorter kernels, {remedies.removeprefix('use ')}"
                raise ValueError(
                    f"block {block} of {len(self.kernels)} has no output: in a window of {self.input_samples} samples "
                    f"its input has {samples}, its convolution (kernel {kernel}, padding {self.padding!r}) leaves "
                    f"{convolved}, and pooling by {self.pool} needs {self.pool}; {remedies}"
                )
            lengths.append(convolved)
            samples = convolved // self.pool
        return lengths


def _as_integer(name: str, value: int) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be an integer") from None


def _as_positive_integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} is {values!r}; it must be a sequence of integers, one for each block")
    integers = tuple(_as_integer(name, value) for value in values)
    if any(value < 1 for value in integers):
        raise ValueError(f"{name} is {integers!r}; every value must be 1 or more")
    return integers


@cache
def import_keras() -> ModuleType:
    """Import Keras with the TensorFlow backend, without TensorFlow's start-up messages.

    Environment variables that are already set are kept.

    Raises
    ------
    ValueError
        If Keras is set to a backend other than TensorFlow.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # TF_CPP_MIN_LOG_LEVEL does not suppress these messages.
    with without_lines("WARNING: All log messages before", "I0000"):
        import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras uses the backend {keras.backend.backend()!r}, but ecg_shock needs 'tensorflow'; "
            "unset KERAS_BACKEND, or change the backend in keras.json"
        )
    return keras


def build_model(spec: CnnSpec, *, seed: int = 0) -> keras.Model:
    """Build the Keras model of a network.

    Parameters
    ----------
    spec : CnnSpec
        The network.
    seed : int
        Seed of the initial weights and of the dropout.

    Returns
    -------
    keras.Model
        The model. Its input is windows in mV, shape (batch, input_samples, 1); its output is the probability of
        shockable, shape (batch, 1).

    Examples
    --------
    >>> model = build_model(CnnSpec(filters=(4,), kernels=(10,)))
    >>> model.count_params()
    49
    """
    keras = import_keras()
    blocks = len(spec.filters)
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(2 * blocks + 1)]

    x = ecg = keras.Input((spec.input_samples, 1), name="ecg")
    for i, (filters, kernel) in enumerate(zip(spec.filters, spec.kernels, strict=True)):
        x = keras.layers.Conv1D(
            filters,
            kernel,
            padding=spec.padding,
            activation=spec.activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seeds[2 * i]),
            name=f"conv_{i + 1}",
        )(x)
        x = keras.layers.MaxPooling1D(spec.pool, name=f"pool_{i + 1}")(x)
        x = keras.layers.Dropout(spec.dropout, seed=seeds[2 * i + 1], name=f"dropout_{i + 1}")(x)
    if spec.global_pool == "max":
        x = keras.layers.GlobalMaxPooling1D(name="global_pool")(x)
    else:
        maximum = keras.layers.GlobalMaxPooling1D(name="global_max")(x)
        average = keras.layers.GlobalAveragePooling1D(name="global_average")(x)
        x = keras.layers.Concatenate(name="global_pool")([maximum, average])
    # The paper's output is 0 for shockable and 1 for nonshockable; here 1 is shockable.
    shockable = keras.layers.Dense(
        1,
        activation="sigmoid",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seeds[-1]),
        name="shockable",
    )(x)
    return keras.Model(ecg, shockable, name="ecg_shock")
