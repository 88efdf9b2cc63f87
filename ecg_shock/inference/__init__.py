"""Advise a shock, or no shock, for a strip, a recording or a stream, without TensorFlow."""
