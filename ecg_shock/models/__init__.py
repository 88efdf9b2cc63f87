"""Specify networks, build their Keras models, and save and load bundles."""

from ecg_shock.models.cnn import CnnSpec, build_model

__all__ = ["CnnSpec", "build_model"]
