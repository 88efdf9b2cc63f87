"""Write ``selftest.c``, which tests the exported C code on its target with a few golden vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecg_shock.export.c_code import SOURCES
from ecg_shock.export.sidecar import GOLDEN_STREAM_TOLERANCE, Golden

SELFTEST_NAME = "selftest.c"
# A shock, a normal rhythm with a few invalid samples, and two windows whose quality withholds the shock.
VECTOR_NAMES = ("coarse_vf", "normal_sinus, invalid samples", "rapid_vt, missing", "rapid_vt, flat")
QUALITIES = {"": "USABLE", "missing": "MISSING", "flat": "FLAT"}
UV_PER_MV = 1000
INVALID_UV = -(2**15)
UV_BYTES = 2
NUMBERS_PER_LINE = 16


def write_selftest(folder: Path, golden: Sequence[Golden], window_samples: int) -> Path:
    """Write ``selftest.c``, and return its path.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of the C code.
    golden : sequence of Golden
        The golden vectors of the export.
    window_samples : int
        Length of a window in samples at 125 Hz.
    """
    by_name = {vector.name: vector for vector in golden}
    chosen = [by_name[name] for name in VECTOR_NAMES]
    samples = len(chosen[0].raw_mv)
    values = {
        "COUNT": len(chosen),
        "FS": f"{chosen[0].fs:.12g}",
        "BYTES": len(chosen) * (UV_BYTES * samples + 8),
        "SAMPLES": samples,
        "REST": len(chosen[0].preprocessed_mv) - window_samples,
        "TOLERANCE": GOLDEN_STREAM_TOLERANCE,
        "VECTORS": "\n".join(map(_row, chosen)),
    }
    code = (SOURCES / SELFTEST_NAME).read_text(encoding="ascii")
    for name, value in values.items():
        code = code.replace(f"@{name}@", str(value))
    path = folder / SELFTEST_NAME
    path.write_text(code, encoding="ascii", newline="\n")
    return path


def _row(vector: Golden) -> str:
    quality = QUALITIES[vector.reason.partition(":")[0]]
    uv = [str(INVALID_UV if mv is None else round(UV_PER_MV * mv)) for mv in vector.raw_mv]
    lines = [", ".join(uv[i : i + NUMBERS_PER_LINE]) for i in range(0, len(uv), NUMBERS_PER_LINE)]
    raw = ",\n     ".join(lines)
    return f"    /* {vector.name} */\n    {{{vector.logit:.9g}f, ECG_SHOCK_{quality},\n    {{{raw}}}}},"
