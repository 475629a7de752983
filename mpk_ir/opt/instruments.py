"""What `mpk-opt` does around passes: print the IR, keep a reproducer, stop a pass that never ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from ..core.errors import MpkError, PlanError
from ..pass_manager import PassInstrument
from ..pipeline_spec import pipeline_text

ToText = Callable[[ModuleOp], str]


@dataclass
class IRPrinter(PassInstrument):
    """Prints the module before and after the passes that the predicates choose, to stderr or to files in a folder.

    ``only_changes`` leaves out a print after a pass that changed nothing. Files are
    `builtin_module_NAME/INDEX_PASS.mlir`, as MLIR names them; a print before a pass ends in `.before.mlir`.
    """

    to_text: ToText
    before_pass: Callable[[str], bool]
    after_pass: Callable[[str], bool]
    only_changes: bool = False
    on_failure: bool = False
    folder: Path | None = None
    _last: str = field(default="", init=False)
    _files: int = field(default=0, init=False)

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Print if chosen; remember the text if changes count."""
        if self.only_changes:
            self._last = self.to_text(module)
        if self.before_pass(pass_.name):
            self._print("Before", pass_, module, ".before")

    def after(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Print if chosen and, where only changes count, changed."""
        changed = not self.only_changes or self.to_text(module) != self._last
        if self.after_pass(pass_.name) and changed:
            self._print("After", pass_, module)
        self._files += 1

    def failed(self, index: int, pass_: ModulePass, module: ModuleOp, error: MpkError) -> None:
        """Print what the failed pass left behind."""
        if self.on_failure:
            self._print("After", pass_, module, ".failed", " Failed")

    def _print(self, when: str, pass_: ModulePass, module: ModuleOp, suffix: str = "", end: str = "") -> None:
        banner = f"// -----// IR Dump {when} {type(pass_).__name__}{end} ({pass_.name}) //----- //"
        text = f"{banner}\n{self.to_text(module)}\n"
        if self.folder is None:
            sys.stderr.write(text + "\n")
            return
        name = module.sym_name.data if module.sym_name else "no-symbol-name"
        path = self.folder / f"builtin_module_{name}" / f"{self._files}_{pass_.name}{suffix}.mlir"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@dataclass
class CrashReproducer(PassInstrument):
    """If a pass fails, writes to ``path`` the IR it was given and, in a comment, the pipeline from it on."""

    path: Path
    to_text: ToText
    passes: Sequence[ModulePass]
    verify_each: bool
    _given: str = field(default="", init=False)

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Keep the IR as the pass finds it."""
        self._given = self.to_text(module)

    def failed(self, index: int, pass_: ModulePass, module: ModuleOp, error: MpkError) -> None:
        """Write the file; a note of ``error`` says so."""
        pipeline = pipeline_text(tuple(self.passes[index:]))
        verify = "true" if self.verify_each else "false"
        header = f"// {CONFIGURATION} -p 'builtin.module({pipeline})' --verify-each={verify}"
        self.path.write_text(f"{header}\n// run: mpk-opt --run-reproducer {self.path}\n\n{self._given}\n")
        error.add_note(f"reproducer written to {self.path}")


CONFIGURATION = "configuration:"


@dataclass
class TimeLimit(PassInstrument):
    """Stops a pass that runs longer than ``seconds``; rewriting that never settles looks like that.

    Works in the main thread only, where Python delivers signals; elsewhere passes run without a limit.
    """

    seconds: float

    def before(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Start the clock."""

        def stop(signum: int, frame: FrameType | None) -> None:
            raise PlanError(
                f"pass '{pass_.name}' still runs after {self.seconds:g} s",
                advice="if its rewrites don't go in circles, raise --pass-time-limit",
            )

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, stop)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def after(self, index: int, pass_: ModulePass, module: ModuleOp) -> None:
        """Stop the clock."""
        if threading.current_thread() is threading.main_thread():
            signal.setitimer(signal.ITIMER_REAL, 0)

    def failed(self, index: int, pass_: ModulePass, module: ModuleOp, error: MpkError) -> None:
        """Stop the clock."""
        self.after(index, pass_, module)
