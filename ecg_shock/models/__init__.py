"""The network: its description in pure Python, and the Keras model that is built from it."""

from ecg_shock.models.cnn import CnnSpec, build_model

__all__ = ["CnnSpec", "build_model"]
