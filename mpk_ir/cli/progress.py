"""What a person sees while waiting: a spinner per stage, then a bar, on stderr only."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Progress:
    """Names what is going on and remembers how long each stage took. Silent where stderr is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line for the person, also where stderr is a file."""
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, doing: str) -> Generator[None]:
        """Shows ``doing`` with a spinner during the block; its time is ``seconds[name]``."""
        begin = time.perf_counter()
        try:
            with self.console.status(doing):
                yield
        finally:
            self.seconds[name] = time.perf_counter() - begin

    @contextmanager
    def bar(self, doing: str, total: int, *, hidden: bool = False) -> Generator[Callable[[], None]]:
        """Shows a bar with rate and time left; calling what it yields moves the bar by one of ``total``."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        visible = self.console.is_terminal and not self.console.quiet and not hidden
        with Bar(*columns, console=self.console, transient=True, disable=not visible) as bar:
            task = bar.add_task(doing, total=total)
            yield lambda: bar.advance(task)
