"""Shock advice from an ECG: train, search, judge by the AHA goals, and run anywhere."""

__version__ = "0.1.0"
