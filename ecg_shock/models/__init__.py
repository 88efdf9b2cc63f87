"""Networks: their specification in pure Python, the Keras model built from it, and bundles."""

from ecg_shock.models.cnn import CnnSpec, build_model

__all__ = ["CnnSpec", "build_model"]
