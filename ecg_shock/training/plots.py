"""Plot how a training run went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecg_shock.training.trainer import THRESHOLD, EpochLog, best_of


def plot_history(history: Sequence[EpochLog], path: Path) -> None:
    """Draw losses, sensitivity, specificity and balanced accuracy by epoch, with the best epoch marked.

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
    from matplotlib.ticker import MaxNLocator

    if not history:
        raise ValueError("history is empty; train at least one epoch")
    best = best_of(history)
    epochs = [e.epoch for e in history]
    marker = "o" if len(history) == 1 else None  # a line of one point cannot be seen

    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, rates = figure.subplots(2, 1, sharex=True)
    losses.plot(epochs, [e.loss for e in history], marker=marker, label="training, with dropout")
    losses.plot(epochs, [e.validation_loss for e in history], marker=marker, label="validation")
    losses.set_yscale("log")
    losses.set_ylabel("Loss")

    rates.plot(epochs, [100 * e.sensitivity for e in history], marker=marker, lw=1, label="sensitivity")
    rates.plot(epochs, [100 * e.specificity for e in history], marker=marker, lw=1, label="specificity")
    rates.plot(
        epochs, [100 * e.balanced_accuracy for e in history], marker=marker, color="black", label="balanced accuracy"
    )
    rates.set_ylabel(f"Validation at threshold {THRESHOLD} (%)")
    rates.set_xlabel("Epoch")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True))

    for axes in (losses, rates):
        axes.axvline(best.epoch, color="gray", ls="--", lw=1)
        axes.grid(alpha=0.3)
        axes.legend(loc="best")
    losses.set_title(
        f"Best epoch {best.epoch}: balanced accuracy {100 * best.balanced_accuracy:.2f} %, "
        f"loss {best.validation_loss:.4g}"
    )
    figure.savefig(path, dpi=120)
