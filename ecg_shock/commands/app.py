"""The command-line program, `ecg-shock COMMAND` or `python -m ecg_shock COMMAND`."""

from __future__ import annotations

import errno
import logging
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from ecg_shock.commands.adjudicate import adjudicate
from ecg_shock.commands.compare import compare
from ecg_shock.commands.explain import explain
from ecg_shock.commands.export import export
from ecg_shock.commands.fetch import fetch
from ecg_shock.commands.manifest import manifest
from ecg_shock.commands.predict import predict
from ecg_shock.commands.scan import scan
from ecg_shock.commands.split import split
from ecg_shock.commands.train import train
from ecg_shock.commands.tune import tune
from ecg_shock.commands.validate import validate
from ecg_shock.commands.windows import windows
from ecg_shock.files import explain as explain_error

FAILED_EXIT_CODE = 1
STOPPED_EXIT_CODE = 130  # as in shells, after Ctrl-C


def _without_types_of_flags(params: list[Any]) -> list[Any]:
    """Hide the type of flags in `--help`, which typer would show as ``<bool>``, as if they took a value."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class Command(TyperCommand):
    """A command whose help shows flags without a type."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the command."""
        return _without_types_of_flags(super().get_params(ctx))


class OneLineErrors(TyperGroup):
    """A group of commands that prints an error as one line on standard error, without a traceback."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the group."""
        return _without_types_of_flags(super().get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command, and exit with 1 after an error, or 130 after Ctrl-C."""
        console = Console(stderr=True)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            console.print("; ".join(["stopped", *map(str, interrupt.args)]))
            raise typer.Exit(STOPPED_EXIT_CODE) from None
        except (ValueError, TypeError, OSError) as error:
            # A closed pipe, such as with `| head`, is not an error; typer ends without a message.
            closed_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            if closed_pipe or ctx.params["verbose"]:
                raise
            console.print(f"error: {_in_one_line(error)}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(FAILED_EXIT_CODE) from error


app = typer.Typer(
    cls=OneLineErrors,
    name="ecg-shock",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log each step, and print the traceback of an error.")
    ] = False,
) -> None:
    """Train, evaluate and use classifiers that advise a shock from an ECG.

    Not a medical device. Run ecg-shock COMMAND --help for help on a command.

    For example:
      ecg-shock fetch vfdb cudb mitdb
      ecg-shock predict cudb/cu01 --start 225
    """
    if verbose:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("ecg_shock").setLevel(logging.DEBUG)


for command in (
    *(fetch, manifest, split, windows, tune, compare, train, validate),
    *(explain, adjudicate, predict, scan, export),
):
    app.command(cls=Command)(command)


def _in_one_line(error: Exception) -> str:
    from pydantic import ValidationError

    return "; ".join(explain_error(error)) if isinstance(error, ValidationError) else str(error)


def main() -> None:
    """Run the command-line program."""
    app(prog_name="ecg-shock")
