"""Run `python -m ecg_shock.tune [STUDY]`, the same as `ecg-shock tune [STUDY]`."""

import sys

from ecg_shock.commands.app import app

if __name__ == "__main__":
    app(["tune", *sys.argv[1:]], prog_name="ecg-shock")
