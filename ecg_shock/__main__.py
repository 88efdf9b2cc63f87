"""Run the command-line program with `python -m ecg_shock COMMAND`."""

from ecg_shock.commands.app import main

if __name__ == "__main__":
    main()
