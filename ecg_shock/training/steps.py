"""Compile the TensorFlow functions of training: several steps in one call, and forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.models.cnn import import_keras
from ecg_shock.training.examples import Views

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# Number of windows in one forward pass without gradients. Larger chunks do not fit into the processor's cache.
INFERENCE_CHUNK = 256
MAX_COPIED = 64 * INFERENCE_CHUNK  # windows that are copied to TensorFlow at a time


class TrainSteps:
    """Train on several batches in one call.

    Parameters
    ----------
    model : keras.Model
        The network, whose weights are trained.
    optimizer : keras.Optimizer
        The optimiser, already built for the network's weights.
    """

    def __init__(self, model: keras.Model, optimizer: keras.Optimizer) -> None:
        import tensorflow as tf

        self._signal = self._start = self._target = None
        last_layer = last_layer_of(model)
        variables = model.trainable_variables
        shape = (None, None)
        specs = [tf.TensorSpec(shape, tf.int64), tf.TensorSpec(shape, tf.float32)]
        specs += [tf.TensorSpec((), tf.int32)] * 2
        specs += [tf.TensorSpec((None,), kind) for kind in (tf.float32, tf.int64, tf.float32)]

        # XLA makes this network many times slower on CPUs.
        @tf.function(input_signature=specs, jit_compile=False)
        def run_steps(
            indices: tf.Tensor,
            weights: tf.Tensor,
            first: tf.Tensor,
            length: tf.Tensor,
            signal: tf.Tensor,
            start: tf.Tensor,
            target: tf.Tensor,
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            steps = tf.shape(indices)[0]
            part = tf.range(tf.cast(first, tf.int64), tf.cast(first + length, tf.int64))
            outputs = [tf.TensorArray(tf.float32, steps) for _ in range(4)]
            for step in tf.range(steps):
                drawn = indices[step]
                labels = tf.gather(target, drawn)
                ecg = tf.gather(signal, tf.gather(start, drawn)[:, tf.newaxis] + part)[..., tf.newaxis]
                with tf.GradientTape() as tape:
                    logits, features = last_layer(ecg, training=True)
                    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
                    # Dividing by the batch size is unbiased; dividing by the sum of the weights is not.
                    loss = tf.reduce_mean(weights[step] * cross_entropy)
                optimizer.apply(tape.gradient(loss, variables), variables)
                error = weights[step] * (tf.sigmoid(logits) - labels)
                summed = tf.linalg.matvec(features, error, transpose_a=True)
                squared_sum = tf.reduce_sum(tf.square(summed)) + tf.square(tf.reduce_sum(error))
                values = (loss, logits, tf.reduce_sum(tf.square(features), axis=1), squared_sum)
                outputs = [output.write(step, value) for output, value in zip(outputs, values, strict=True)]
            losses, all_logits, squared_norms, squared_sums = (output.stack() for output in outputs)
            return losses, all_logits, squared_norms, squared_sums

        self._run_steps = run_steps

    def load(self, ecg: np.ndarray | Views, targets: np.ndarray) -> None:
        """Load the windows to draw from, shape (N, n), and the probabilities to learn, shape (N,)."""
        import tensorflow as tf

        # All samples are one tensor in memory, from which each step gathers its windows inside TensorFlow.
        views = Views.of(ecg)
        self._signal, self._start = tf.constant(views.signal), tf.constant(views.start)
        self._target = tf.constant(targets, dtype=tf.float32)

    def __call__(
        self, indices: np.ndarray, weights: np.ndarray, first: int, length: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Train on batches of the loaded windows.

        Parameters
        ----------
        indices, weights : numpy.ndarray
            Shape (steps, batch): the indices of the windows, and the weights of the windows in the loss.
        first, length : int
            The first sample and the length, in samples, of the part of each window to train on.

        Returns
        -------
        losses : numpy.ndarray
            Shape (steps,): the loss of each step.
        logits, squared_norms : numpy.ndarray
            Shape (steps, batch): the logits, and the squared norms of the pooled features.
        squared_sums : numpy.ndarray
            Shape (steps,): ‖Σ w g‖² of each batch, where g is the gradient with respect to the last layer.
        """
        import tensorflow as tf

        outputs = self._run_steps(
            tf.constant(indices, tf.int64),
            tf.constant(weights, tf.float32),
            tf.constant(first, tf.int32),
            tf.constant(length, tf.int32),
            self._signal,
            self._start,
            self._target,
        )
        losses, logits, squared_norms, squared_sums = (output.numpy() for output in outputs)
        return losses, logits, squared_norms, squared_sums


def compile_inference(
    model: keras.Model, *, dropout: bool = False
) -> Callable[[np.ndarray | Views], tuple[np.ndarray, np.ndarray]]:
    """Return a function that computes the logits and the squared norms of the pooled features, both of shape (N,).

    The function takes windows of shape (N, n), as an array or as views. Dropout is active if `dropout` is True.
    """
    import tensorflow as tf

    last_layer = last_layer_of(model)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 1))], jit_compile=False)
    def run(ecg: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chunks = -(-tf.shape(ecg)[0] // INFERENCE_CHUNK)
        all_logits = tf.TensorArray(tf.float32, chunks, infer_shape=False, element_shape=(None,))
        all_norms = tf.TensorArray(tf.float32, chunks, infer_shape=False, element_shape=(None,))
        for chunk in tf.range(chunks):
            windows = ecg[chunk * INFERENCE_CHUNK : (chunk + 1) * INFERENCE_CHUNK]
            logits, features = last_layer(windows, training=dropout)
            all_logits = all_logits.write(chunk, logits)
            all_norms = all_norms.write(chunk, tf.reduce_sum(tf.square(features), axis=1))
        return all_logits.concat(), all_norms.concat()

    def infer(ecg: np.ndarray | Views) -> tuple[np.ndarray, np.ndarray]:
        parts = [ecg[i : i + MAX_COPIED] for i in range(0, len(ecg), MAX_COPIED)]
        outputs = [run(tf.constant(part[..., np.newaxis])) for part in parts]
        logits, squared_norms = (np.concatenate([o.numpy() for o in output]) for output in zip(*outputs, strict=True))
        return logits, squared_norms

    return infer


def last_layer_of(model: keras.Model) -> Callable[..., tuple[Any, Any]]:
    """Return a function that computes logits, shape (batch,), and pooled features, shape (batch, features).

    The function takes windows of shape (batch, n, 1).
    """
    import tensorflow as tf

    keras = import_keras()
    dense = model.get_layer("shockable")
    pooled = keras.models.clone_model(
        keras.Model(model.input, dense.input),
        input_tensors=keras.Input((None, 1)),
        clone_function=lambda layer: layer,  # the layers and their weights are shared, not copied
    )

    def last_layer(windows: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        features = pooled(windows, training=training)
        # The cross-entropy of a logit is more exact than that of a rounded probability.
        logits = tf.squeeze(tf.matmul(features, dense.kernel) + dense.bias, axis=1)
        return logits, features

    return last_layer
