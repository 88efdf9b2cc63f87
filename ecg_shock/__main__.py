"""Run `python -m ecg_shock COMMAND`, the same as `ecg-shock COMMAND`."""

from ecg_shock.commands.app import main

if __name__ == "__main__":
    main()
