"""The command `gristmill`: nouns and verbs as git and kubectl have them.

Subcommands load when they are asked for, so that `gristmill --help` and completion answer at once.
Exit codes: 0 done, 1 failed, 2 usage or config, 3 input, 4 store, 5 integrity, 6 set-up, 7 conflict, 130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence

import click

from pipelines.errors import GristmillError

_COMMANDS = {
    "run": "run a recipe or one job",
    "plan": "what a job will cost, from a sample of its input",
    "retry": "try again the records that one reason cost",
    "datasets": "look at what is stored: ls, show, sample, report, files, gc",
    "preview": "what a filter's threshold would keep, before any run",
    "explain": "what happened to a URL or a document, and why; whose a token is",
    "takedown": "remove pages everywhere, and prove it: add, apply, verify, purge",
    "config": "settings of a job, with defaults, units and origins",
    "runs": "training runs: ls, show, stop, resume, amend, branch, compare, export",
    "submit": "send a job to a cluster",
    "cluster": "Spark and Ray on this machine: up, down, status",
    "doctor": "what works here, and what to do where it does not",
}


class _Lazy(click.Group):
    """Loads `cluster.cli.NAME` only for the command that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(f"cluster.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="gristmill", prog_name="gristmill")
def gristmill(debug: bool) -> None:
    """From a web crawl to a trained language model, and back: what happened to any page, and why."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors become one message, its mend and an exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "NO_COLOR" in os.environ:
        os.environ["CLICK_COLOR"] = "0"
    try:
        gristmill.main(args=given, standalone_mode=False)
    except click.exceptions.Abort:
        _leave("interrupted; the same command goes on where it stopped", 130)
    except KeyboardInterrupt:
        _leave("interrupted; the same command goes on where it stopped", 130)
    except click.ClickException as e:
        e.show()
        sys.exit(2)
    except GristmillError as e:
        if "--debug" in given:
            traceback.print_exc()
        if "--json" in given:
            error = {"kind": type(e).__name__, "message": e.args[0], "key": e.key, "mend": e.mend}
            click.echo(json.dumps({"error": error}, ensure_ascii=False))
        _leave(str(e), e.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _leave(message: str, code: int) -> None:
    click.echo(f"gristmill: {message}", err=True)
    sys.exit(code)
