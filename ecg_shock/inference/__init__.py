"""Advice on a strip, a recording or a stream, without TensorFlow."""
