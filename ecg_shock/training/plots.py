"""Plot how a training run went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecg_shock.training.trainer import EpochLog


def plot_history(history: Sequence[EpochLog], path: Path) -> None:
    """Draw the losses, and sensitivity, specificity and balanced accuracy, by epoch, with the best epoch marked.

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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not history:
        raise ValueError("history is empty; train at least one epoch")
