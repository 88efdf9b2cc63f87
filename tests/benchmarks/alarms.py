"""Set alarm rules side by side on the validation patients: `python tests/benchmarks/alarms.py MODEL`.

This is where a default rule is chosen: the test patients of the model are not looked at. MODEL is a bundle, or a folder
of fold-0/bundle, fold-1/bundle …; without it, the model that comes with the package. Recordings are found as
`ecg-shock validate` finds them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ecg_shock.evaluation.evaluation_set import find_bundles
from ecg_shock.evaluation.events import records_of, whole_records
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.report.formats import to_rich_tables
from ecg_shock.report.whole_records import event_tables

PART = "validation"


def main() -> None:
    """Print the figures of the default rule, and those of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--data", type=Path, help="folder of the recordings")
    options = parser.parse_args()
    bundles = find_bundles(options.model)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("records", total=sum(len(records_of(bundle, part=PART)) for bundle in bundles))
        found = whole_records(bundles, folder=options.data, part=PART, on_record=lambda: progress.advance(task))
    console.print(to_rich_tables(event_tables(found)))
    console.print(f"{PART} patients of {', '.join(bundle.folder.name for bundle in bundles)}", highlight=False)


if __name__ == "__main__":
    main()
