"""`mpk`: finds the command, and turns every way to fail into a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from .. import __version__
from ..core.errors import MpkError, UsageError, did_you_mean
from . import bench_command, compile_command, report_command, run_command, trace_command, tune_command, verify_command

COMMANDS = {
    "run": run_command,
    "compile": compile_command,
    "bench": bench_command,
    "report": report_command,
    "trace": trace_command,
    "tune": tune_command,
    "verify": verify_command,
}
INTERNAL_ERROR = 70
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE

USAGE = """usage: mpk COMMAND ...

Compiles a whole LLM forward pass, and many decode steps, into one persistent CUDA kernel.

commands:
{commands}

  mpk COMMAND --help    the options of a command
  mpk --version
  --traceback           with any command: where in mpk-ir an error arose
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0; 1 for input that fails; 2 for wrong usage; 130 for Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in given
    given = [argument for argument in given if argument != "--traceback"]
    try:
        code = _dispatch(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again at exit: into nothing, or it would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        return _failed(error)
    return code


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        summaries = (f"  {name:<10} {module.SUMMARY}" for name, module in COMMANDS.items())
        print(USAGE.format(commands="\n".join(summaries)), end="")
        return 0 if given else UsageError.exit_code
    if given[0] == "--version":
        print(f"mpk-ir {__version__}")
        return 0
    if given[0] not in COMMANDS:
        raise UsageError(f"unknown command '{given[0]}'", advice=did_you_mean(given[0], COMMANDS))
    command = COMMANDS[given[0]]
    try:
        parsed = command.parser().parse(given[1:])
    except SystemExit:  # --help has printed; mistakes raise UsageError
        return 0
    return command.run(parsed)


def _failed(error: Exception) -> int:
    if isinstance(error, MpkError):
        print(f"mpk: error: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        print(f"mpk: error: {place}{error.strerror or error}", file=sys.stderr)
        return MpkError.exit_code
    print(f"mpk: internal error: {type(error).__name__}: {error}", file=sys.stderr)
    print("  help: this is a bug of mpk-ir; --traceback shows where", file=sys.stderr)
    return INTERNAL_ERROR


if __name__ == "__main__":
    sys.exit(main())
