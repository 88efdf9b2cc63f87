"""Plot how a training run went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_shock.training.trainer import THRESHOLD, EpochLog, best_of


def plot_history(history: Sequence[EpochLog], path: Path) -> None:
    """Draw what an epoch came to and how its windows were drawn, by epoch, with the best epoch marked.

    From above: the losses; sensitivity, specificity and balanced accuracy; the batch that uniform sampling would need
    for the same variance, and Kish's size of a batch; the largest importance weight, and what importance sampling could
    gain at most; the share of each rhythm among the windows drawn.

    Parameters
    ----------
    history : sequence of EpochLog
        At least one epoch.
    path : pathlib.Path
        The image to write; its suffix sets the format, such as ``.png`` or ``.svg``.

    Raises
    ------
    ValueError
        If there is no epoch.
    """
    # The object interface leaves pyplot's global state, and any window of the caller's, alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    if not history:
        raise ValueError("history is empty; train at least one epoch")
    best = best_of(history)
    epochs = [e.epoch for e in history]
    marker = "o" if len(history) == 1 else None  # a line of one point cannot be seen

    figure = Figure(figsize=(8, 13), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates, sizes, weights, shares = figure.subplots(5, 1, sharex=True)
    losses.plot(epochs, [e.loss for e in history], marker=marker, label="training, with dropout")
    losses.plot(epochs, [e.validation_loss for e in history], marker=marker, label="validation")
    losses.set_yscale("log")
    losses.set_ylabel("Loss")

    rates.plot(epochs, [100 * e.sensitivity for e in history], marker=marker, lw=1, label="sensitivity")
    rates.plot(epochs, [100 * e.specificity for e in history], marker=marker, lw=1, label="specificity")
    rates.plot(
        epochs, [100 * e.balanced_accuracy for e in history], marker=marker, color="black", label="balanced accuracy"
    )
    # The first epochs may be anywhere; what matters lies close to 100 %.
    settled = history[len(history) // 4 :]
    rates.set_ylim(max(0.0, 100 * min(min(e.sensitivity, e.specificity) for e in settled) - 2), 100.5)
    rates.set_ylabel(f"Validation at threshold {THRESHOLD} (%)")

    effective = [np.nan if e.effective_batch is None else e.effective_batch for e in history]
    sizes.plot(epochs, effective, marker=marker, label="effective: uniform batch of the same variance")
    sizes.plot(epochs, [e.kish for e in history], marker=marker, label="Kish's size")
    sizes.set_yscale("log", base=2)
    sizes.yaxis.set_major_formatter(ScalarFormatter())
    sizes.yaxis.set_minor_formatter(NullFormatter())
    sizes.set_ylabel("Windows a batch")

    weights.plot(epochs, [e.largest_weight for e in history], marker=marker, label="largest weight")
    gains = [np.nan if e.gain is None else e.gain for e in history]
    weights.plot(epochs, gains, marker=marker, label="τ: root of the largest gain in second moment")
    weights.set_ylabel("Weight, gain")
    weights.set_ylim(bottom=0)

    for name in history[0].drawn:
        shares.plot(epochs, [100 * e.drawn[name] for e in history], marker=marker, label=name.replace("_", " "))
    shares.set_ylabel("Share of the draws (%)")
    shares.set_ylim(bottom=0)
    shares.set_xlabel("Epoch")
    shares.xaxis.set_major_locator(MaxNLocator(integer=True))

    for axes in (losses, rates, sizes, weights, shares):
        axes.axvline(best.epoch, color="gray", ls="--", lw=1)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", fontsize="small")
    losses.set_title(
        f"Best epoch {best.epoch}: balanced accuracy {100 * best.balanced_accuracy:.2f} %, "
        f"loss {best.validation_loss:.4g}"
    )
    figure.savefig(path, dpi=120)
