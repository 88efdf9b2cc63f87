"""The rules that a sidecar gives for a port, in words and numbers: the preprocessing, and the checks of the quality.

The numbers are those of `ecg_shock.preprocessing` and `ecg_shock.inference.quality`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecg_shock.inference import quality
from ecg_shock.preprocessing import FS, GAP_S, MAX_MV, WARM_UP_S

C_CHECKS = ("missing", "out of range", "flat")  # those that ecg_shock.c has

CONSTANTS = {"max_mv": MAX_MV, "gap_s": GAP_S, "lead_in_s": WARM_UP_S}
STREAM_STEPS = (
    f"The network takes a window of one lead in mV at {FS:g} Hz after these steps, which are all causal.",
    "1. Replace each invalid sample (lead off, saturated, above max_mv or below -max_mv) by the last valid one. Before "
    "the first valid sample the signal is 0.",
    "2. Subtract the value of the first valid sample from all samples. After gap_s or more without a valid sample, "
    "change the subtracted value so that the next valid sample continues from the last value.",
    f"3. Resample to {FS:g} Hz: insert up - 1 zeros after each sample, filter with the taps (FIR), and keep the first "
    "and then every down-th sample. rates_hz has up, down and taps for each sampling rate. For a rate that is missing, "
    "export with --fs.",
    "4. Filter with the second-order sections in their order. A row is b0 b1 b2 a0 a1 a2; all states begin at 0. A "
    "mains notch, if any, is the last section.",
    "5. If grid_mv is a number, round to its multiples.",
    "6. The window consists of the last samples. For an int8 input divide by scale, round to nearest, add zero_point, "
    "and clip to -128 to 127.",
)
STRIP_STEPS = (
    "A strip of 2 to 10 s without earlier samples gets a lead-in, in which the filters settle. The golden vectors are "
    "streams, and need none.",
    "1. Replace each invalid sample by the last valid one, at the start by the first valid one. Step 2 of steps, for "
    "streams, is not used.",
    "2. Put the first lead_in_s * fs samples (rounded; at most the whole strip), in reverse order, in front of the "
    "strip. Subtract the first sample of the result from all samples.",
    "3. Continue with steps 3 to 5 of steps. If the lead-in has k samples and the strip n, drop the first "
    "round(k * up / down) samples, and keep the next round(n * up / down).",
)

QUALITY_RULE = (
    "If one check finds a fault, the window is unusable, and no shock may be advised, whatever the network's output "
    "is. A port must add each check of which included is false, or prove that its device cannot have this fault. "
    "Without these checks, hum, noise and saturation can be taken for VF."
)
QUALITY_TERMS = {
    "raw": f"the raw samples of the window in mV: round(n * fs / {FS:g}) samples for n filtered samples, with the same "
    "end; in a golden vector the last raw_window samples of raw_mv",
    "held": "raw, in which each invalid sample (missing, above max_mv or below -max_mv) is replaced by the last valid "
    "one of the window, at the start by the first valid one",
    "low, high, span": "the smallest and the largest sample of raw apart from missing ones, and high - low",
    "filtered": f"the window after the preprocessing, n samples in mV at {FS:g} Hz, before a conversion to int8",
    "power": "subtract the mean from filtered, multiply sample i by 0.5 - 0.5 * cos(2 * pi * i / (n - 1)), and take "
    f"the discrete Fourier transform of length n; the power of bin k = 0 to n / 2, at k * {FS:g} / n Hz, is its "
    f"squared magnitude plus {quality.SPECTRUM_FLOOR:g}",
}


@dataclass(frozen=True)
class QualityCheck:
    """A check of the quality of a window.

    Parameters
    ----------
    name : str
        Name of the fault.
    fault : str
        When the check finds the fault, in words that use the names of the limits and of `QUALITY_TERMS`.
    limits : dict
        The limits by name. A limit without a unit in its name is a proportion or a number of samples.
    included : bool
        Whether the exported code contains this check.
    """

    name: str
    fault: str
    limits: dict[str, float]
    included: bool = False


QUALITY_CHECKS = (
    QualityCheck(
        "missing",
        "More than the proportion max_missing of raw is missing (NaN, infinite, lead off). The C code counts samples "
        "above max_mv or below -max_mv as missing too. A window without a valid sample is unusable, and "
        "needs no other check.",
        {"max_missing": quality.MAX_MISSING},
    ),
    QualityCheck(
        "out of range",
        "span > max_range_mv, or a sample of raw is above max_mv or below -max_mv.",
        {"max_range_mv": quality.MAX_RANGE_MV, "max_mv": MAX_MV},
    ),
    QualityCheck(
        "flat",
        "span < min_range_mv, or max_constant_s * fs (rounded) or more samples of held in a row are equal to the "
        "sample before them.",
        {"min_range_mv": quality.MIN_RANGE_MV, "max_constant_s": quality.MAX_CONSTANT_S},
    ),
    QualityCheck(
        "saturated",
        "near_low is the proportion of held at or below low + rail_width * span, near_high that at or above "
        "high - rail_width * span. Either near_low + near_high > max_at_rails, and both are above min_at_each_rail; or "
        "near_low + near_high > max_clipped, and the proportion of held in runs of clip_run or more samples that are "
        "exactly low, or exactly high, is above max_clipped.",
        {
            "rail_width": quality.RAIL_WIDTH,
            "max_at_rails": quality.MAX_AT_RAILS,
            "min_at_each_rail": quality.MIN_AT_EACH_RAIL,
            "clip_run": quality.CLIP_RUN,
            "max_clipped": quality.MAX_CLIPPED,
        },
    ),
    QualityCheck(
        "ringing",
        "The range of filtered, largest minus smallest sample, is above max_growth * span: the filter still rings from "
        "an earlier artefact.",
        {"max_growth": quality.MAX_GROWTH},
    ),
    QualityCheck(
        "mains hum",
        "The sum of power from mains_from_hz on, divided by the sum from ecg_from_hz on, is above max_mains.",
        {
            "mains_from_hz": quality.MAINS_FROM_HZ,
            "ecg_from_hz": quality.ECG_FROM_HZ,
            "max_mains": quality.MAX_MAINS,
        },
    ),
    QualityCheck(
        "broadband noise",
        "All of a, b and c. Bands include their lower and exclude their upper frequency. a: rms_hz > muscle_rms_hz, or "
        "rms_hz > white_rms_hz and flatness > white_flatness. rms_hz is the square root of sum(power * Hz * Hz) / "
        "sum(power) from band_low_hz to band_high_hz; flatness is the geometric mean of power divided by its "
        "arithmetic mean from flatness_low_hz to flatness_high_hz. b: steadiness > min_steadiness. Square the "
        "differences between successive samples of filtered, and average them over blocks of block_s "
        f"({round(quality.NOISE_BLOCK_S * FS)} differences) from the start, without an incomplete last block; "
        f"steadiness is the median of these averages divided by their mean plus {quality.SPECTRUM_FLOOR:g}. c: the "
        "median, over the complete seconds of filtered from the start, of the range in a second is above "
        "min_amplitude_mv.",
        {
            "muscle_rms_hz": quality.MUSCLE_RMS_HZ,
            "white_rms_hz": quality.WHITE_RMS_HZ,
            "white_flatness": quality.WHITE_FLATNESS,
            "band_low_hz": quality.NOISE_BAND_HZ[0],
            "band_high_hz": quality.NOISE_BAND_HZ[1],
            "flatness_low_hz": quality.FLATNESS_BAND_HZ[0],
            "flatness_high_hz": quality.FLATNESS_BAND_HZ[1],
            "block_s": quality.NOISE_BLOCK_S,
            "min_steadiness": quality.NOISE_STEADINESS,
            "min_amplitude_mv": quality.NOISE_MIN_MV,
        },
    ),
)
