"""`ecg-shock explain`: measure what a network responds to."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ecg_shock.commands import check_folder


def explain(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="Folder of a bundle, or of a run with one.", show_default="the pretrained model"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="MODEL/explain, or runs/explain")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings.", show_default="ECG_SHOCK_DATA, else the cache folder"),
    ] = None,
) -> None:
    """Measure what a network responds to.

    Beats, giant T waves, oscillations, pacing spikes, chest compressions and
    other patterns are added to strips of the model's test patients, at several
    doses. Without test patients, those of validation or training are taken.
    The importance of a pattern is the mean change of the logit.

    These files are written:
      explain.html    the results on one page
      explain.json    the same as numbers
      importance.png  the importance of all patterns
      doses.png       the response to the doses of some patterns

    Example: ecg-shock explain runs/train
    """
    from ecg_shock.evaluation.evaluation_set import find_bundles
    from ecg_shock.evaluation.importance import explain as measure
    from ecg_shock.inference.advisor import DEFAULT_BUNDLE
    from ecg_shock.report.importance import (
        NAMES,
        answer_questions,
        describe_evidence,
        describe_habits,
        overview_table,
        write_explanation,
    )

    bundles = find_bundles(model or DEFAULT_BUNDLE)
    if len(bundles) > 1:
        raise ValueError(f"{model} holds {len(bundles)} models; give one of them, such as {bundles[0].folder}.")
    folder = out or (model / "explain" if model else Path("runs") / "explain")
    check_folder(folder)
    console = Console(markup=False, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def on_stage(stage: str, steps: int) -> Callable[[], None]:
            task = progress.add_task(stage, total=steps)
            return lambda: progress.advance(task)

        found = measure(bundles[0], data=data, seed=seed, on_stage=on_stage)
    words = ["ecg-shock", "explain", *([str(model)] if model else []), "--seed", str(seed)]
    write_explanation(found, folder, shlex.join(words))
    console.print(f"{found.model}. {describe_evidence(found)}")
    if found.omitted:
        console.print(found.omitted, style="bold yellow")
    console.print("\nMost dangerous habits", style="bold")
    for number, sentence in enumerate(describe_habits(found), 1):
        console.print(f"{number}. {sentence}")
    for question, answer in answer_questions(found):
        console.print(f"\n{question}", style="bold")
        console.print(answer)
    console.print()
    console.print(overview_table(found).to_rich())
    console.print(f"written: {folder}/{', '.join(NAMES)}", soft_wrap=True)
