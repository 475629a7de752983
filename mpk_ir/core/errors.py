"""Every way a user can fail, as a class. The message says what was found, what was expected, where, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MpkError(Exception):
    """Base of all errors a user may see; the command line prints it without a traceback.

    ``where`` is a file, ``file:line`` or IR location; ``advice`` says what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, advice: str | None = None) -> None:
        self.message = message
        self.where = where
        self.advice = advice
        super().__init__(message)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  help: {self.advice}" if self.advice else ""
        return f"{place}{self.message}{advice}"


class UsageError(MpkError):
    """The command line or an API call asked for something that does not exist or does not fit."""

    exit_code = 2


class CheckpointError(MpkError):
    """A checkpoint folder is incomplete, damaged or contradicts its own config."""


class UnsupportedError(MpkError):
    """The input is valid but outside what mpk-ir can compile."""


class PlanError(MpkError):
    """A pass cannot produce a legal plan."""


class VerificationError(MpkError):
    """A plan breaks one of the rules that make it safe to run."""


class KernelCompileError(MpkError):
    """NVRTC rejected the emitted source; carries its log."""


class DeviceError(MpkError):
    """The CUDA driver reported an error, or there is no usable device."""


class RankError(MpkError):
    """Another rank failed, is gone, or runs another plan."""


class KernelTimeoutError(DeviceError):
    """A bounded spin in the kernel ran out: names task, event, count and target."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Advice for a mistyped ``name``: the closest known name, else all of them."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names)}"
