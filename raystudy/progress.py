"""Progress of a study on a terminal; quiet everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from raystudy.study.spec import StudySpec
from raystudy.tracking.records import TrialRecord, TrialState


class Progress:
    """Shows stages and the search on ``console``; on a console that is no terminal nothing is shown."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]*"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        task = self._bars.add_task(name, total=1)
        yield
        self._bars.update(task, completed=1)

    @contextmanager
    def search(self, spec: StudySpec) -> Iterator[Callable[[TrialRecord], None]]:
        """Yields what to call whenever a trial's record grew."""
        task = self._bars.add_task("search", total=spec.budget.trials)
        trials: dict[str, TrialRecord] = {}

        def show(trial: TrialRecord) -> None:
            trials[trial.id] = trial
            running = [one for one in trials.values() if one.state is TrialState.RUNNING]
            best = max((one.valid_r2 for one in trials.values() if one.valid_r2 is not None), default=None)
            now = " ".join(f"{one.id}:{len(one.epochs)}/{one.config['epochs']}" for one in running)
            text = f"search  {now}" + ("" if best is None else f"  best valid R2 {best:.3f}")
            self._bars.update(task, description=text, completed=len(trials) - len(running))

        yield show
        self._bars.update(task, total=len(trials))
