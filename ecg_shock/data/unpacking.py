"""Unpack the samples of WFDB and BDF signal files."""

from __future__ import annotations

import numpy as np

# For each format: samples per block, bytes per block, and the value that marks an invalid sample, see
# https://wfdb.io/spec/signal-files.html
BLOCKS = {
    "16": (1, 2, -(2**15)),
    "24": (1, 3, -(2**23)),
    "32": (1, 4, -(2**31)),
    "61": (1, 2, -(2**15)),
    "80": (1, 1, -(2**7)),
    "160": (1, 2, -(2**15)),
    "212": (2, 3, -(2**11)),
    "310": (3, 4, -(2**9)),
    "311": (3, 4, -(2**9)),
}
PARTIAL_BLOCKS = {"212": (2,), "310": (2, 4), "311": (2, 3)}  # bytes of an incomplete last block of 1 or 2 samples


def unpack(fmt: str, content: bytes) -> np.ndarray:
    """Return the samples of complete blocks as signed integers; `fmt` is a key of `BLOCKS`."""
    if fmt in ("16", "61", "32"):
        return np.frombuffer(content, {"16": "<i2", "61": ">i2", "32": "<i4"}[fmt])
    if fmt == "80":
        return np.frombuffer(content, np.uint8).astype(np.int16) - 2**7
    if fmt == "160":
        return np.frombuffer(content, "<u2").astype(np.int32) - 2**15
    if fmt == "24":
        return unpack_24(content)
    if fmt == "212":
        low, middle, high = np.frombuffer(content, np.uint8).reshape(-1, 3).T.astype(np.int16)
        samples, bits = np.stack([low | (middle & 0x0F) << 8, high | (middle >> 4) << 8], axis=1), 12
    else:
        word = np.frombuffer(content, "<u4").astype(np.int64)
        if fmt == "310":  # bits 1 to 10 of each half are a sample; bits 11 to 15 of both halves are the third
            third = (word >> 11 & 0x1F) | (word >> 27 & 0x1F) << 5
            samples = np.stack([word >> 1 & 0x3FF, word >> 17 & 0x3FF, third], axis=1)
        else:
            samples = np.stack([word & 0x3FF, word >> 10 & 0x3FF, word >> 20 & 0x3FF], axis=1)
        bits = 10
    samples = samples.reshape(-1)
    return np.where(samples >= 2 ** (bits - 1), samples - 2**bits, samples)


def unpack_24(content: bytes) -> np.ndarray:
    """Return little-endian integers of 24 bits as int32."""
    padded = np.zeros((len(content) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return padded.view("<i4")[:, 0] >> 8
