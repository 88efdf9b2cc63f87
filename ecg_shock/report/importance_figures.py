"""Draw the importance of patterns and the response to their doses, for the HTML page and as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from ecg_shock.evaluation.backgrounds import COARSE_VF, QUIET, RANDOMISED, SINUS
from ecg_shock.evaluation.importance import Importance, find_habits
from ecg_shock.evaluation.patterns import OSCILLATION, SCALED, T_WAVES, VENTRICULAR
from ecg_shock.evaluation.responses import Estimate
from ecg_shock.inference.advisor import to_logit
from ecg_shock.report.figures import FIRST, INK, SECOND, SOFT, STYLE
from ecg_shock.report.formats import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVERVIEW = "Importance of each pattern at its usual dose"
ROW_PX, NAMES_PX, WIDTH_PX = 26, 290, 760
LOOKS = {SINUS: (FIRST, "o", "-"), COARSE_VF: (SECOND, "s", "--"), QUIET: (INK, "^", "-"), RANDOMISED: (SOFT, "D", ":")}
SHOWN = (SCALED, VENTRICULAR, T_WAVES, OSCILLATION, "chest compressions", "pacing spikes")  # beside the worst habits
MAX_SHOWN, COLUMNS = 6, 2
MARGINS = (52, 24, 30, 44)  # of the chart of a response, in pixels, with a legend above it
PICTURE_DPI = 75


class Size(TypedDict):
    """Size of a chart in pixels."""

    width: float
    height: float
    margins: tuple[float, float, float, float]


def size_of_overview(found: Importance) -> Size:
    """Return the size that `draw_overview` needs, as arguments of `to_svg`."""
    rows = len({response.pattern for response in found.responses})
    return {"width": WIDTH_PX, "height": ROW_PX * rows + 80, "margins": (NAMES_PX, 24, 34, 46)}


def draw_overview(axes: Axes, found: Importance) -> None:
    """Draw the change of the logit at the usual dose, a row for each pattern."""
    patterns = list(dict.fromkeys(response.pattern for response in found.responses))
    names = {r.pattern: f"{r.pattern}, {r.doses[r.usual]:g} {r.unit}".replace(" /min", "/min") for r in found.responses}
    for k, (kind, (colour, marker, _)) in enumerate(LOOKS.items()):
        responses = [response for response in found.responses if response.background == kind]
        y = [patterns.index(response.pattern) + (k - 1.5) / 6 for response in responses]
        low, mean, high = _curves([response.importance for response in responses])
        axes.hlines(y, low, high, color=colour, lw=1.5)
        axes.plot(mean, y, marker, color=colour, ms=6, ls="none", label=kind)
    axes.axvline(0, color=SOFT, lw=1)
    axes.set(ylim=(len(patterns) - 0.4, -0.6), xlabel="change of the logit (positive: for a shock)")
    axes.set_yticks(range(len(patterns)), [printable(names[pattern]) for pattern in patterns])
    axes.legend(loc="lower center", bbox_to_anchor=(0.3, 1.0), ncols=4, columnspacing=1.0, handletextpad=0.2)


def draw_response(axes: Axes, found: Importance, pattern: str, *, legend: bool = True) -> None:
    """Draw the logit at each dose of a pattern, a line for each kind of background, and a legend above the chart."""
    responses = [response for response in found.responses if response.pattern == pattern]
    for response in responses:
        colour, marker, line = LOOKS[response.background]
        first = 0 if response.from_zero else 1
        doses, (low, mean, high) = response.doses[first:], _curves(response.logit[first:])
        axes.fill_between(doses, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(doses, mean, line + marker, color=colour, ms=5, lw=1.5, label=response.background)
    axes.axhline(float(to_logit(found.threshold)), color=SOFT, lw=1, ls=(0, (4, 3)))
    one = responses[0]
    axes.set(xlim=(0, one.doses[-1]), xlabel=printable(f"{one.dose} ({one.unit})"), ylabel="logit of shockable")
    if legend:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.1, 1.0), ncols=4, fontsize=10, columnspacing=0.8)


def save_pictures(found: Importance, overview: Path, doses: Path) -> None:
    """Save two PNG files: the importance of all patterns, and the responses to the most dangerous and to others."""
    from matplotlib import style
    from matplotlib.figure import Figure

    patterns = dict.fromkeys(response.pattern for response in found.responses)
    habits = [habit.response.pattern for habit in find_habits(found.responses)]
    chosen = list(dict.fromkeys([*habits, *(pattern for pattern in SHOWN if pattern in patterns)]))[:MAX_SHOWN]
    with style.context(["default", STYLE]):
        size = size_of_overview(found)
        figure = Figure(figsize=(size["width"] / 72, size["height"] / 72), layout="constrained")
        draw_overview(figure.add_subplot(), found)
        figure.savefig(overview, dpi=PICTURE_DPI)
        figure = Figure(figsize=(4.4 * COLUMNS, 3.6 * math.ceil(len(chosen) / COLUMNS)), layout="constrained")
        for number, pattern in enumerate(chosen, 1):
            axes = figure.add_subplot(math.ceil(len(chosen) / COLUMNS), COLUMNS, number)
            draw_response(axes, found, pattern, legend=False)
            axes.set_title(printable(pattern), fontsize=12)
        lines = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
        figure.legend(
            [lines[kind] for kind in LOOKS if kind in lines],
            [k for k in LOOKS if k in lines],
            loc="outside upper center",
            ncols=len(LOOKS),
        )
        figure.savefig(doses, dpi=PICTURE_DPI)


def _curves(found: Sequence[Estimate]) -> np.ndarray:
    """Return the lower limits, means and upper limits; a missing limit is the mean."""
    limits = [
        (one.mean if one.lower is None else one.lower, one.mean, one.mean if one.upper is None else one.upper)
        for one in found
    ]
    return np.array(limits).reshape(-1, 3).T
