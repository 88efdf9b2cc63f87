"""What a run must remember so that it can be repeated: versions and commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("ecg-shock", "numpy", "scipy", "scikit-learn", "keras", "keras-tuner", "tensorflow", "tensorflow-cpu"),
    *("ai-edge-litert", "pydantic", "wfdb"),
)
GIT_TIMEOUT_S = 10


def commit() -> str | None:
    """Return the git commit of the checkout that runs, marked if there are changes on top of it.

    Returns
    -------
    str or None
        None if the package is installed, not checked out, or git is missing.
    """
    checkout = Path(__file__).resolve().parents[1]
    # An installed package may lie inside somebody else's repository.
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """List the versions of Python and of the packages that decide a result.

    Returns
    -------
    dict of str
        Installed packages only.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
