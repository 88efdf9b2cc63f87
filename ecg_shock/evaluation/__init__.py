"""Evaluate algorithms: predictions, AHA verdicts, confidence limits, events, comparisons and stress tests."""
