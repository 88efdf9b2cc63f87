"""Run the commands of `explain.md` again, and write what they print and draw: `python docs/refresh_explain.py`.

Run it after the pretrained model was replaced. Then read the page again: the sentences around the results may no longer
be true.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from ecg_shock.commands.app import app

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "explain.md"
BLOCK = re.compile(r"(?<!-->\n)```console\n\$ ecg-shock (\w+)(.*)\n[^`]*```")
PICTURES = {
    "explain/importance.png": "importance.png",
    "explain/doses.png": "doses.png",
    "predict/418-230s.png": "explained.png",
}


def rerun(block: re.Match[str]) -> str:
    """Return a block with what its command prints now."""
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [block[1], *shlex.split(block[2])], catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(done.output)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join([f"```console\n$ ecg-shock {block[1]}{block[2]}", *lines, "```"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        text = BLOCK.sub(rerun, PAGE.read_text(encoding="utf-8"))
        for drawn, name in PICTURES.items():
            shutil.copy(Path("runs") / drawn, DOCS / "pictures" / name)
    PAGE.write_text(text, encoding="utf-8")
