"""Hide known messages of native libraries."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_lines(*prefixes: str) -> Iterator[None]:
    """Capture standard error, also of native libraries, and print it on exit, without some lines.

    Parameters
    ----------
    *prefixes : str
        Beginnings of the lines that are not printed.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            held.seek(0)
            for line in held.readlines():
                if not line.decode(errors="replace").startswith(prefixes):
                    os.write(terminal, line)
            os.close(terminal)
