"""Draw the figures that commands save: a training, the trials of a search, windows, a scan, and an explanation.

Each function returns a matplotlib figure. pyplot is not used, so that the caller's own figures do not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.data.lead import Lead
from ecg_shock.inference.occlusion import Explanation, Part
from ecg_shock.inference.scan_files import clock
from ecg_shock.inference.scanning import Scan
from ecg_shock.preprocessing import FS
from ecg_shock.rhythms import AHA_LABELS, CLASSES, INTERMEDIATE, SHOCKABLE
from ecg_shock.search.trials import Trial, pareto_front, rank
from ecg_shock.training.trainer import THRESHOLD, EpochLog, best_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ecg_shock.data.windows import WindowSet
    from ecg_shock.search.compare_curves import Band
    from ecg_shock.search.consensus import Candidate

# ECG paper: usual speed and gain, and side lengths of the small and large boxes.
PAPER_MM_PER_S, PAPER_MM_PER_MV = 25.0, 10.0
SMALL_MM, LARGE_MM = 1, 5
PAPER_COLOUR, SMALL_BOX_COLOUR, LARGE_BOX_COLOUR = "#fffaf8", "#fbe0dc", "#f0b4ac"
LARGE_BOX_S, LARGE_BOX_MV = LARGE_MM / PAPER_MM_PER_S, LARGE_MM / PAPER_MM_PER_MV
KIND_COLOURS = {"shockable": "#b3261e", "nonshockable": "#1b6e3c", "intermediate": "#5f6368"}

SHEET_COLUMNS = 4
INCHES_PER_S = 0.75
MARGIN_IN, GAP_IN, HEADING_IN, TITLE_IN = 0.25, 0.16, 0.24, 0.2
MIN_HALF_RANGE_MV, MAX_HALF_RANGE_MV = 0.5, 3.0  # half the height of a row; larger complexes are cut off

MAX_BELOW_BEST = 0.12  # in balanced accuracy, of the trials that are shown
MAX_SHIFT = 0.15  # of a trial's line from the number of its block
SCAN_COLUMNS = 3000  # columns of the overview of a recording; each shows the range of its samples
MAX_SHORT_S = 90.0  # for longer recordings, onsets are also drawn enlarged
MAX_MINUTES_S = 7200.0  # above this length the time axis is in hours
MAX_ONSETS = 5  # number of onsets that are drawn enlarged
BEFORE_ONSET_S, AFTER_ONSET_S = 10.0, 20.0
ECG_COLOUR, EPISODE_COLOUR, UNUSABLE_COLOUR = "#202124", "#b3261e", "#9aa0a6"
RARE_PERCENT = 0.5  # percentage of columns whose peaks are rare; these peaks get at most half of the height


def draw_history(history: Sequence[EpochLog]) -> Figure:
    """Draw the history of a training run, and mark the best epoch.

    The charts show, from top to bottom:

    - The training and validation loss.
    - Sensitivity, specificity and balanced accuracy on the validation patients.
    - The batch size with which uniform sampling would have the same variance of the gradient, and Kish's effective
      batch size.
    - The largest importance weight, and an upper limit of the gain of importance sampling.
    - The proportion of each rhythm among the windows drawn.

    Raises
    ------
    ValueError
        If the history has no epoch.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    if not history:
        raise ValueError("history has no epoch; give the history of one or more epochs")
    best = best_of(history)
    epochs = [e.epoch for e in history]

    figure = Figure(figsize=(8, 13), dpi=120, layout="constrained")
    losses, accuracies, sizes, weights, proportions = figure.subplots(5, 1, sharex=True)

    def draw(axes: Axes, values: Iterable[float | None], label: str, **style: Any) -> None:
        # A single epoch is visible only with a marker. None becomes NaN, a gap in the line.
        axes.plot(
            epochs, np.array([*values], dtype=float), marker="o" if len(history) == 1 else None, label=label, **style
        )

    draw(losses, (e.loss for e in history), "training, with dropout")
    draw(losses, (e.validation_loss for e in history), "validation")
    losses.set(yscale="log", ylabel="Loss")

    draw(accuracies, (100 * e.sensitivity for e in history), "sensitivity", lw=1)
    draw(accuracies, (100 * e.specificity for e in history), "specificity", lw=1)
    draw(accuracies, (100 * e.balanced_accuracy for e in history), "balanced accuracy", color="black")
    # The first quarter of the epochs does not widen the axis.
    settled = history[len(history) // 4 :]
    accuracies.set_ylim(max(0.0, 100 * min(min(e.sensitivity, e.specificity) for e in settled) - 2), 100.5)
    accuracies.set_ylabel(f"Validation at threshold {THRESHOLD} (%)")

    draw(sizes, (e.effective_batch for e in history), "uniform batch size of the same variance")
    draw(sizes, (e.kish for e in history), "Kish's effective batch size")
    sizes.set_yscale("log", base=2)
    sizes.yaxis.set_major_formatter(ScalarFormatter())
    sizes.yaxis.set_minor_formatter(NullFormatter())
    sizes.set_ylabel("Batch size (windows)")

    draw(weights, (e.largest_weight for e in history), "largest weight")
    draw(weights, (e.gain for e in history), "τ: root of the largest possible gain in second moment")
    weights.set_ylabel("Weight, gain")
    weights.set_ylim(bottom=0)

    for name in history[0].drawn:
        draw(proportions, (100 * e.drawn[name] for e in history), name.replace("_", " "))
    proportions.set(ylabel="Proportion of windows drawn (%)", xlabel="Epoch")
    proportions.set_ylim(bottom=0)
    proportions.xaxis.set_major_locator(MaxNLocator(integer=True))

    for axes in (losses, accuracies, sizes, weights, proportions):
        axes.axvline(best.epoch, color="gray", ls="--", lw=1)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    losses.set_title(
        f"Best epoch {best.epoch}: balanced accuracy {100 * best.balanced_accuracy:.2f} %, "
        f"loss {best.validation_loss:.4g}"
    )
    return figure


def draw_curves(bands: Sequence[Band], levels: Sequence[float], *, title: str) -> Figure:
    """Draw the learning curves of a comparison, a row for each fold: medians and quartiles over the seeds.

    Left, the balanced accuracy is drawn against the gradient evaluations, and right against the time. Dotted lines are
    the levels.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    folds = sorted({band.fold for band in bands})
    names = list(dict.fromkeys(band.name for band in bands))
    colours = colormaps["tab10" if len(names) <= 10 else "tab20"]
    figure = Figure(figsize=(12, 0.8 + 3.7 * len(folds)), dpi=110, layout="constrained")
    rows = figure.subplots(len(folds), 2, sharex="col", squeeze=False)
    for fold, row in zip(folds, rows, strict=True):
        of_fold = [band for band in bands if band.fold == fold]
        for axes, cost in zip(row, ("evaluations", "seconds"), strict=True):
            for band in of_fold:
                x, colour = getattr(band, cost), colours(names.index(band.name))
                single = "o" if len(x) == 1 else None  # a single epoch is visible only with a marker
                label = f"{band.name} ({band.seeds})"
                axes.plot(x, 100 * band.median, color=colour, marker=single, lw=1.4, label=label)
                axes.fill_between(x, 100 * band.low, 100 * band.high, color=colour, alpha=0.12, lw=0)
            for level in levels:
                axes.axhline(100 * level, color="gray", ls=":", lw=1)
            # The first quarter of the epochs does not widen the axis.
            settled = np.concatenate([band.low[len(band.low) // 4 :] for band in of_fold])
            highest = max(band.high.max() for band in of_fold)
            lowest = min(settled.min(), *levels) if levels else settled.min()
            margin = 0.05 * (highest - lowest) + 1e-3
            axes.set_ylim(100 * (lowest - margin), 100 * (max(highest, *levels, 0) + margin))
            axes.grid(alpha=0.3)
        row[0].set_ylabel(f"fold {fold}: balanced accuracy (%)")
        row[1].set_yticklabels([])
    rows[0, 0].legend(loc="lower right", fontsize="small", title="variant (seeds)")
    rows[-1, 0].set_xlabel("gradient evaluations (windows)")
    rows[-1, 0].xaxis.set_major_formatter(EngFormatter(sep=""))
    rows[-1, 1].set_xlabel("time (s)")
    figure.suptitle(f"{title}: validation patients, medians and quartiles over seeds")
    return figure


def draw_trials(trials: Sequence[Trial], *, title: str) -> Figure:
    """Draw the balanced accuracy of trials against their multiply-adds, with a colour for each depth.

    A line joins the trials of the Pareto front, see `pareto_front`. Failed trials are excluded. Trials far below the
    best one are only counted.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import StrMethodFormatter

    figure = Figure(figsize=(8.0, 5.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    front = pareto_front(trials)
    ranked = rank(trials)
    depths = sorted({trial.depth for trial in ranked})
    colours = colormaps["viridis_r"]
    axes.step(
        [trial.macs / 1e6 for trial in front],
        [100 * trial.balanced_accuracy for trial in front],
        where="post",
        color="#b3261e",
        label="Pareto front",
    )
    for index, depth in enumerate(depths):
        chosen = [trial for trial in ranked if trial.depth == depth]
        axes.scatter(
            [trial.macs / 1e6 for trial in chosen],
            [100 * trial.balanced_accuracy for trial in chosen],
            color=colours((index + 0.5) / len(depths)),
            label=f"N = {depth}  ({len(chosen)})",
            edgecolor="black",
            linewidth=0.4,
            zorder=2,
        )
    axes.set(xlabel="multiply-adds for one window (millions)", ylabel="validation balanced accuracy (%)", title=title)
    axes.grid(alpha=0.3)
    if depths:
        lowest = ranked[0].balanced_accuracy - MAX_BELOW_BEST
        below = sum(trial.balanced_accuracy < lowest for trial in ranked)
        if below:
            axes.set_ylim(bottom=100 * lowest)
            axes.annotate(f"{below} below", (0.01, 0.01), xycoords="axes fraction", color="gray")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.legend(title="blocks (trials)", loc="best", fontsize="small")
    return figure


def draw_candidates(candidates: Sequence[Candidate], *, title: str) -> Figure:
    """Draw the networks from which each candidate is made: a row for each depth, filters left, and kernels right.

    Thin lines are the best trials, a darker one for a better trial; trials with equal values are drawn side by side.
    The thick line is the candidate, their median.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.0, 0.8 + 1.9 * len(candidates)), dpi=110, layout="constrained")
    rows = figure.subplots(len(candidates), 2, sharex=True, sharey="col", squeeze=False)
    for candidate, row in zip(candidates, rows, strict=True):
        count = len(candidate.top)
        blocks = np.arange(1, len(candidate.filters) + 1)
        for axes, field in zip(row, ("filters", "kernels"), strict=True):
            for place, trial in enumerate(candidate.top):
                shift = MAX_SHIFT * (2 * (place + 1) / (count + 1) - 1)
                colour = colormaps["Blues"](0.9 - 0.6 * place / max(count - 1, 1))
                axes.plot(blocks + shift, getattr(trial, field), color=colour, marker=".", lw=0.8)
            axes.plot(blocks, getattr(candidate, field), color="#b3261e", marker="o", lw=2.2, alpha=0.8)
            axes.grid(alpha=0.3)
            axes.set_ylim(bottom=0)
        row[0].set_ylabel(f"N = {len(blocks)}\nfilters")
        row[1].set_ylabel("kernel length")
    for axes in rows[-1]:
        axes.set_xlabel("block")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"{title}: the best trials of each depth (blue, darker is better) and their median (red)")
    return figure


def draw_sheet(found: WindowSet, seed: int) -> Figure:
    """Draw random windows on ECG paper, in one row for each AHA class, all with the same scale.

    Windows of different patients are chosen if possible.

    Parameters
    ----------
    found : WindowSet
        The windows to choose from.
    seed : int
        Seed of the random choice.

    Raises
    ------
    ValueError
        If there are no windows.
    """
    from matplotlib.figure import Figure

    if not len(found):
        raise ValueError("there are no windows to draw; choose other databases or another window length.")
    rng = np.random.default_rng(seed)
    chosen = {
        name: _choose(found, name, rng)
        for name in dict.fromkeys([*CLASSES, *found.aha_class.tolist()])
        if name in found.aha_class
    }
    ranges = {name: _half_range_mv(found.ecg[indices]) for name, indices in chosen.items()}
    inches_per_mv = INCHES_PER_S * LARGE_BOX_S / LARGE_BOX_MV
    heights = {name: 2 * half * inches_per_mv for name, half in ranges.items()}
    window_width = found.window_s * INCHES_PER_S
    width = SHEET_COLUMNS * (window_width + MARGIN_IN) + MARGIN_IN
    height = sum(heights.values()) + len(heights) * (GAP_IN + HEADING_IN + TITLE_IN) + HEADING_IN + 2 * MARGIN_IN
    figure = Figure(figsize=(width, height), dpi=150)
    y = height - MARGIN_IN - HEADING_IN
    databases = ", ".join(name for name in dict.fromkeys(found.database.tolist()) if name)  # artefact has none
    caption = (
        f"{found.window_s:g}-s windows by AHA class · {databases} · "
        f"filtered · large box {LARGE_BOX_S:g} s × {LARGE_BOX_MV:g} mV · seed {seed}"
    )
    figure.text(MARGIN_IN / width, y / height, caption, fontsize=12)
    for name, indices in chosen.items():
        y -= GAP_IN + HEADING_IN
        member = found.aha_class == name
        patients = len(set(found.patient[member].tolist()) - {""})
        label = AHA_LABELS.get(name, name.replace("_", " "))
        figure.text(
            MARGIN_IN / width,
            y / height,
            f"{label}: {_kind(name)}, {int(member.sum()):,} windows, {patients} patients",
            fontsize=11,
            fontweight="bold",
            color=KIND_COLOURS[_kind(name)],
        )
        y -= TITLE_IN + heights[name]
        for column, index in enumerate(indices):
            x = MARGIN_IN + column * (window_width + MARGIN_IN)
            axes = figure.add_axes((x / width, y / height, window_width / width, heights[name] / height))
            _draw_window(axes, found, int(index), ranges[name])
    return figure


def _choose(found: WindowSet, aha_class: str, rng: np.random.Generator) -> np.ndarray:
    """Choose the indices of up to four random windows of a class, of different patients if possible."""
    order = rng.permutation(np.flatnonzero(found.aha_class == aha_class))
    first_of_patient = np.sort(np.unique(found.patient[order], return_index=True)[1])
    return np.concatenate([order[first_of_patient], np.delete(order, first_of_patient)])[:SHEET_COLUMNS]


def _half_range_mv(ecg: np.ndarray) -> float:
    """Return half the height of a row in mV, a whole number of large boxes."""
    largest = np.ceil(np.abs(ecg).max() / LARGE_BOX_MV) * LARGE_BOX_MV
    return float(np.clip(largest, MIN_HALF_RANGE_MV, MAX_HALF_RANGE_MV))


def _draw_window(axes: Axes, found: WindowSet, index: int, half_range_mv: float) -> None:
    ecg = found.ecg[index]
    _draw_paper(axes, found.window_s, half_range_mv)
    axes.plot(np.arange(len(ecg)) / FS, ecg, color="black", linewidth=0.8)
    place = ""
    if found.record[index]:
        place = f"{found.database[index]}/{found.record[index]}"
        if np.isfinite(found.start_s[index]):  # an augmented window has no start time in the record
            place += f" @ {found.start_s[index]:.1f} s"
    rhythm = str(found.rhythm[index]).replace("_", " ")
    axes.set_title(f"{place}  {found.lead[index]}  {rhythm}", fontsize=8, loc="left", pad=2.5)


def _draw_paper(axes: Axes, length_s: float, half_range_mv: float) -> None:
    """Draw ECG paper for `length_s` seconds and ±`half_range_mv` mV, and set these limits of the axes."""
    axes.set(xlim=(0, length_s), ylim=(-half_range_mv, half_range_mv), xticks=[], yticks=[], facecolor=PAPER_COLOUR)
    for step_mm, colour, width in ((SMALL_MM, SMALL_BOX_COLOUR, 0.3), (LARGE_MM, LARGE_BOX_COLOUR, 0.6)):
        at_s = np.arange(0, length_s, step_mm / PAPER_MM_PER_S)
        at_mv = np.arange(-half_range_mv, half_range_mv, step_mm / PAPER_MM_PER_MV)
        axes.vlines(at_s, -half_range_mv, half_range_mv, colors=colour, linewidths=width)
        axes.hlines(at_mv, 0, length_s, colors=colour, linewidths=width)
    for spine in axes.spines.values():
        spine.set(color=LARGE_BOX_COLOUR)


def _kind(aha_class: str) -> str:
    return "shockable" if aha_class in SHOCKABLE else "intermediate" if aha_class in INTERMEDIATE else "nonshockable"


def draw_scan(scan: Scan, lead: Lead) -> Figure:
    """Draw a scanned recording: the ECG, the probability of shockable, the episodes, and enlarged onsets.

    At most five onsets are enlarged, and none if the recording lasts 90 s or less.
    """
    from matplotlib.figure import Figure

    enlarged = () if scan.duration_s <= MAX_SHORT_S else scan.episodes[:MAX_ONSETS]
    rows = 2 + len(enlarged)
    figure = Figure(figsize=(14, 2.2 + 1.9 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, 1, gridspec_kw={"height_ratios": [2, 1.4] + [1.6] * len(enlarged)})
    overview, probability = axes[:2]

    unit_s, unit = (1.0, "s") if scan.duration_s <= MAX_SHORT_S else (60.0, "min")
    if scan.duration_s > MAX_MINUTES_S:
        unit_s, unit = 3600.0, "h"
    middle_s, low, high = _envelope(lead)
    if np.isfinite(low).any():
        overview.set_ylim(*_limits(low, high))
    overview.fill_between(middle_s / unit_s, low, high, color=ECG_COLOUR, lw=0.4)
    overview.set_ylabel(f"{lead.lead} (mV)")
    _draw_probability(probability, scan, unit_s)
    probability.set_xlabel(f"Time ({unit})")
    for ax in (overview, probability):
        _shade(ax, scan, unit_s)
        ax.set_xlim(0, scan.duration_s / unit_s)
    for ax, episode in zip(axes[2:], enlarged, strict=True):
        first_s = max(0.0, episode.onset_s - BEFORE_ONSET_S)
        last_s = min(scan.duration_s, episode.onset_s + AFTER_ONSET_S)
        first, last = round(first_s * scan.fs), round(last_s * scan.fs)
        ax.plot(np.arange(first, last) / scan.fs, lead.read(first, last), color=ECG_COLOUR, lw=0.7)
        _draw_probability(ax.twinx(), scan, 1.0)
        _shade(ax, scan, 1.0)
        ax.set_xlim(first_s, last_s)
        ax.set_ylabel("mV")
        ax.set_title(f"onset at {clock(episode.onset_s)}, alarm at {clock(episode.alarm_s)}", loc="left", fontsize=9)
    axes[-1].set_xlabel(f"Time ({unit})" if not enlarged else "Time (s)")
    count = len(scan.episodes)
    shown = f", the first {len(enlarged)} below" if 0 < len(enlarged) < count else ""
    figure.suptitle(
        f"{scan.name}: {count} episode{'' if count == 1 else 's'} of shockable rhythm{shown}; "
        f"{scan.window_s:g}-s windows every {scan.step_s:g} s, alarm at {scan.alarm_rule.k} of {scan.alarm_rule.n}"
    )
    return figure


def _envelope(lead: Lead) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the time in s, the lowest sample in mV and the highest sample in mV of each column of the overview.

    Both samples are NaN if all samples of the column are invalid.
    """
    columns = min(SCAN_COLUMNS, lead.n_samples)
    edges = np.arange(columns + 1) * lead.n_samples // columns
    low, high = np.full(columns, np.nan), np.full(columns, np.nan)
    first = 0
    for piece in lead.pieces():
        inside = slice(np.searchsorted(edges, first, "right") - 1, np.searchsorted(edges, first + len(piece), "left"))
        starts = np.maximum(edges[inside], first) - first
        low[inside] = np.fmin(low[inside], np.fmin.reduceat(piece, starts))
        high[inside] = np.fmax(high[inside], np.fmax.reduceat(piece, starts))
        first += len(piece)
    return (edges[:-1] + edges[1:]) / 2 / lead.fs, low, high


def _limits(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """Return the lower and upper limit of the axis in mV.

    Rare high peaks are cut off if they would need more than half of the height.
    """
    bottom = float(np.nanpercentile(low, RARE_PERCENT))
    top = float(np.nanpercentile(high, 100 - RARE_PERCENT))
    span = top - bottom
    bottom, top = max(float(np.nanmin(low)), bottom - span / 2), min(float(np.nanmax(high)), top + span / 2)
    margin = max(0.1 * span, 0.05)
    return bottom - margin, top + margin


def _draw_probability(ax: Axes, scan: Scan, unit_s: float) -> None:
    """Draw the probability of each window around its middle, the threshold, and a dot for each unusable window."""
    middle = (scan.start_s + scan.window_s / 2) / unit_s
    half_step = scan.step_s / 2 / unit_s
    edges = np.stack([middle - half_step, middle + half_step], axis=1).ravel()
    ax.plot(edges, np.repeat(scan.probability, 2), color=EPISODE_COLOUR, lw=0.8, alpha=0.8)
    ax.plot(middle[~scan.usable], np.zeros((~scan.usable).sum()), ".", color=UNUSABLE_COLOUR, ms=3)
    ax.axhline(scan.threshold, color=EPISODE_COLOUR, lw=0.6, ls=":")
    ax.set_ylim(-0.04, 1.04)
    ax.set_ylabel("P(shockable)")


def _shade(ax: Axes, scan: Scan, unit_s: float) -> None:
    for episode in scan.episodes:
        ax.axvspan(episode.onset_s / unit_s, episode.end_s / unit_s, color=EPISODE_COLOUR, alpha=0.15, lw=0)


def draw_explanation(explanation: Explanation, title: str, start_s: float = 0.0) -> Figure:
    """Draw a strip with the effect of each second and of each frequency band on the logit.

    The strip is shaded by the effect of each second. A bar is an effect; the line across it extends from one of the two
    changes of the logit to the other, as `ecg_shock.inference.occlusion` describes them.

    Parameters
    ----------
    explanation : Explanation
        The result of `Advice.explain`.
    title : str
        The title.
    start_s : float
        Time of the start of the strip, in seconds.
    """
    from matplotlib.figure import Figure

    ecg = explanation.strip - np.median(explanation.strip)
    length_s, half_range = len(ecg) / explanation.fs, _half_range_mv(ecg)
    figure = Figure(figsize=(9, 6.5), dpi=110, layout="constrained")
    paper, seconds, bands = figure.subplots(3, 1, gridspec_kw={"height_ratios": [2, 1.3, 1.3]})
    _draw_paper(paper, length_s, half_range)
    paper.plot(np.arange(len(ecg)) / explanation.fs, ecg, color=ECG_COLOUR, lw=0.8)
    paper.set_ylabel(f"{LARGE_BOX_S:g} s x {LARGE_BOX_MV:g} mV")
    largest = max((abs(part.effect) for part in explanation.seconds), default=0.0) or 1.0
    for part in explanation.seconds:
        paper.axvspan(part.low, part.high, color=_effect_colour(part), alpha=0.35 * abs(part.effect) / largest, lw=0)
        _draw_effect(seconds, (part.low + part.high) / 2, part.high - part.low, part)
    for place, part in enumerate(explanation.bands):
        _draw_effect(bands, place, 1.0, part)
    seconds.set(xlim=(0, length_s), xlabel="time (s)", ylabel="effect on the logit")
    edges = [part.low for part in explanation.seconds] + [length_s]
    seconds.set_xticks(edges, [f"{start_s + edge:g}" for edge in edges])
    bands.set(xlabel="frequency band", ylabel="effect on the logit")
    bands.set_xticks(range(len(explanation.bands)), [part.name for part in explanation.bands])
    for axes in (seconds, bands):
        axes.axhline(0, color=ECG_COLOUR, lw=0.8)
        axes.grid(axis="y", alpha=0.3)
    figure.suptitle(title, parse_math=False)
    return figure


def _draw_effect(axes: Axes, centre: float, width: float, part: Part) -> None:
    axes.bar(centre, part.effect, 0.6 * width, color=_effect_colour(part), alpha=0.8)
    axes.vlines(centre, part.removed, part.randomised, color=UNUSABLE_COLOUR, lw=2)
    axes.plot([centre] * 2, [part.removed, part.randomised], "_", color=UNUSABLE_COLOUR, ms=9)


def _effect_colour(part: Part) -> str:
    return KIND_COLOURS["shockable" if part.effect > 0 else "nonshockable"]
