"""`mpk-opt`: xDSL's driver with what users of `mlir-opt` expect of one."""

from __future__ import annotations

import os
import shlex
import sys
import time
import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import ClassVar

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import PassPipeline
from xdsl.printer import Printer
from xdsl.utils.exceptions import ArgSpecParseError, ShrinkException
from xdsl.xdsl_opt_main import xDSLOptMain

from .. import __version__
from ..core.errors import MpkError, UsageError, did_you_mean
from ..pass_manager import PassInstrument, PassManager, RunReport, describe
from ..pipeline_spec import parse_pipeline, pipeline_text
from ..universe import multiverse
from ..verification import structurally_equal, verify
from .arguments import add_arguments, reject_unknown, split_pipelines
from .diagnostics import Diagnostic, DiagnosticError, expectations, mismatches
from .instruments import CONFIGURATION, CrashReproducer, IRPrinter, TimeLimit
from .source import SPLIT_MARKER, Source, place_of


class MpkOpt(xDSLOptMain):
    """One run of the tool. Raises UsageError if the command line asks for what does not exist."""

    version_format: ClassVar[str] = f"mpk-opt {__version__} on xdsl {{xdsl_version}}"

    def __init__(self, arguments: Sequence[str]) -> None:
        self.pipelines, self.arguments = split_pipelines(arguments, multiverse().all_passes)
        self.printer: IRPrinter | None = None
        self.can_shrink = False
        super().__init__("Runs passes over IR of mpk-ir's and xDSL's dialects.", self.arguments)

    def register_all_dialects(self) -> None:
        for name, factory in multiverse().all_dialects.items():
            self.ctx.register_dialect(name, factory)

    def register_all_passes(self) -> None:
        self.available_passes.update(multiverse().all_passes)

    def register_all_targets(self) -> None:
        self.available_targets.update(multiverse().all_targets)

    def register_all_arguments(self, arg_parser: ArgumentParser) -> None:
        arg_parser.prog = "mpk-opt"
        arg_parser.allow_abbrev = False
        super().register_all_arguments(arg_parser)
        add_arguments(arg_parser)
        reject_unknown(arg_parser, self.arguments, self.available_passes)
        target = arg_parser.parse_known_args(self.arguments)[0].target
        name = target.partition("{")[0]
        if name not in self.available_targets:
            raise UsageError(f"unknown target '{name}'", advice=did_you_mean(name, self.available_targets))

    def setup_pipeline(self) -> None:
        self.pipeline = PassPipeline(tuple(pass_ for text in self.pipelines for pass_ in parse_pipeline(text)))

    def execute(self) -> int:
        """Do what the command line says; 0 if nothing went wrong."""
        if self.args.list_passes or self.args.show_dialects:
            from .reports import list_dialects, list_passes

            sys.stdout.write(list_passes() if self.args.list_passes else list_dialects())
            return 0
        source = self._read()
        if self.args.run_reproducer:
            self._take_configuration(source)
        if self.args.dump_pass_pipeline:
            passes = self.pipeline.passes
            sys.stderr.write(f"Pass Manager with {len(passes)} passes:\nbuiltin.module({pipeline_text(passes)})\n")
        self.printer = self._ir_printer()
        chunks = source.split() if self.args.split_input_file else [source]
        outputs: list[str] = []
        failures = sum(self._failed(chunk, outputs) for chunk in chunks)
        if self.args.shrink:  # the reducer wants 0 for "still interesting"
            return 0 if self.can_shrink else 1
        if not failures or self.args.split_input_file:
            self._write(f"{SPLIT_MARKER}\n".join(outputs))
        return 1 if failures else 0

    def _failed(self, chunk: Source, outputs: list[str]) -> bool:
        """Process ``chunk``, report what there is to report; whether that makes the run fail."""
        produced: list[Diagnostic] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                outputs.append(self._process(chunk))
            except DiagnosticError as error:
                if self.args.traceback:
                    raise
                produced += error.diagnostic.with_notes()
        produced[:0] = [Diagnostic("warning", str(one.message)) for one in caught if one.category is UserWarning]
        if self.args.verify_diagnostics:
            produced = mismatches(chunk.name, expectations(chunk.text), produced)
        for diagnostic in produced:
            sys.stderr.write(f"{diagnostic}\n{chunk.excerpt(diagnostic) if diagnostic.severity != 'note' else ''}")
        return any(diagnostic.severity == "error" for diagnostic in produced) and not self.args.parsing_diagnostics

    def _process(self, chunk: Source) -> str:
        """The text that comes out of ``chunk``. Raises DiagnosticError."""
        start = time.perf_counter()
        module = chunk.parse(self.ctx, implicit_module=not self.args.no_implicit_module)
        parse_seconds = time.perf_counter() - start
        report = RunReport()
        try:
            if self.args.verify_roundtrip:
                self._verify_roundtrip(chunk, module)
            verify_each = self.args.verify_each and not self.args.no_verify
            if not verify_each and not self.args.no_verify:
                verify(module)
            report = PassManager(self.pipeline.passes, instruments=self._instruments(), verify_each=verify_each).run(
                self.ctx, module
            )
            start = time.perf_counter()
            text = self._output(module)
        except MpkError as error:
            self.can_shrink |= isinstance(error.__cause__, ShrinkException)
            raise DiagnosticError(_diagnostic(error)) from error
        self._report(report, parse_seconds, time.perf_counter() - start)
        return text

    def _output(self, module: ModuleOp) -> str:
        try:
            return self.output_resulting_program(module)
        except MpkError:
            raise
        except Exception as error:
            raise MpkError(f"target '{self.args.target}': {describe(error)}") from error

    def _instruments(self) -> list[PassInstrument]:
        chosen: list[PassInstrument] = [] if self.printer is None else [self.printer]
        if self.args.crash_reproducer:
            path = Path(self.args.crash_reproducer)
            chosen.append(CrashReproducer(path, self._text, self.pipeline.passes, self.args.verify_each))
        if self.args.pass_time_limit > 0:
            chosen.append(TimeLimit(self.args.pass_time_limit))
        return chosen

    def _ir_printer(self) -> IRPrinter | None:
        args = self.args
        before, after = self._names(args.ir_before), self._names(args.ir_after)
        after_all = args.ir_after_all or (args.ir_change and not after)
        if not (before or after or args.ir_before_all or after_all or args.ir_failure):
            return None
        return IRPrinter(
            self._text,
            lambda name: args.ir_before_all or name in before,
            lambda name: after_all or name in after,
            only_changes=args.ir_change,
            on_failure=args.ir_failure,
            folder=Path(args.ir_tree_dir[-1]) if args.ir_tree_dir else None,
        )

    def _names(self, lists: list[str] | None) -> set[str]:
        names = {name.strip() for one in lists or () for name in one.split(",")}
        for name in names:
            if name not in self.available_passes:
                raise UsageError(f"unknown pass '{name}'", advice=did_you_mean(name, self.available_passes))
        return names

    def _text(self, module: ModuleOp) -> str:
        stream = StringIO()
        printer = Printer(
            stream, print_generic_format=self.args.print_op_generic, print_debuginfo=self.args.print_debuginfo
        )
        printer.print_op(module)
        return stream.getvalue()

    def _verify_roundtrip(self, chunk: Source, module: ModuleOp) -> None:
        for generic in (False, True):
            stream = StringIO()
            Printer(stream, print_generic_format=generic).print_op(module)
            form = "generic" if generic else "custom"
            again = Source(f"{chunk.name} ({form} form)", stream.getvalue()).parse(self.ctx)
            if not structurally_equal(module, again):
                raise MpkError(f"the {form} form of the module does not parse to the same module", where=chunk.name)

    def _report(self, report: RunReport, parse_seconds: float, output_seconds: float) -> None:
        from .reports import statistics, timing

        if self.args.timing:
            sys.stderr.write(timing(report, parse_seconds, output_seconds))
        if self.args.statistics:
            sys.stderr.write(statistics(report))

    def _take_configuration(self, source: Source) -> None:
        lines = [line for line in source.text.split("\n") if line.startswith(f"// {CONFIGURATION}")]
        if not lines:
            raise UsageError(f"no `// {CONFIGURATION}` line", where=source.name, advice="is this a reproducer?")
        words = shlex.split(lines[0].split(CONFIGURATION, 1)[1])
        self.pipelines, rest = split_pipelines(words, self.available_passes)
        self.args.verify_each = "--verify-each=false" not in rest
        self.setup_pipeline()

    def _read(self) -> Source:
        name = self.args.input_file
        if name in (None, "-"):
            return Source("<stdin>", _decode(sys.stdin.buffer.read(), "<stdin>"))
        try:
            return Source(name, _decode(Path(name).read_bytes(), name))
        except OSError as error:
            raise UsageError(f"cannot read it: {error.strerror}", where=name) from None

    def _write(self, text: str) -> None:
        if self.args.output_file in (None, "-"):
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        try:
            Path(self.args.output_file).write_text(text)
        except OSError as error:
            raise UsageError(f"cannot write it: {error.strerror}", where=self.args.output_file) from None


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MpkError(f"not UTF-8 text: byte {data[error.start]:#04x}", where=f"{name}:{line}") from None


def _diagnostic(error: MpkError) -> Diagnostic:
    file, line, column = place_of(error.where)
    advice = (f"help: {error.advice}",) if error.advice else ()
    return Diagnostic("error", error.message, file, line, column, notes=(*advice, *getattr(error, "__notes__", ())))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mpk-opt`. Returns 0, or 1 if there were errors in the input, or 2 if the command line made no sense."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return MpkOpt(words).execute()
    except SystemExit as stop:  # argparse: --help, --version, a malformed value
        return stop.code if isinstance(stop.code, int) else 2
    except ArgSpecParseError as error:  # a malformed -t; it derives from BaseException
        sys.stderr.write(f"mpk-opt: error: {error}\n")
        return 2
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except MpkError as error:
        if "--traceback" in words:
            raise
        sys.stderr.write(f"mpk-opt: error: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
