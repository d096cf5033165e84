"""The judging part; what the scenarios find is in docs/engine-comparison.md."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from benchmarks.bare_tune import traces
from benchmarks.bare_tune.__main__ import markdown
from benchmarks.bare_tune.judging import Fact, Finding, judge
from benchmarks.bare_tune.running import SYSTEMS
from benchmarks.bare_tune.scenarios import SCENARIOS, failed
from benchmarks.bare_tune.script import BROKEN, SECOND
from benchmarks.bare_tune.traces import Traces


def trial(x: float, state: TrialState, value: float | None = None, **attributes: str) -> FrozenTrial:
    return optuna.trial.create_trial(
        params={"x": x}, distributions={"x": FloatDistribution(0, 1)}, state=state, value=value, user_attrs=attributes
    )


def diary(*entries: tuple[float, int]) -> list[dict[str, object]]:
    return [{"config": {"x": x}, "epoch": epoch} for x, epoch in entries]


def left(trials: list[FrozenTrial], written: list[dict[str, object]], **others: object) -> Traces:
    fields = {"front": [], "results": [], "error": None, "rungs": [], "epochs": 2} | others
    return Traces(diary=written, trials=trials, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("truth", "found", "right"),
    [
        (0.3, 0.1 + 0.2, True),
        (0.3, 0.31, False),
        (0.3, None, False),
        (None, None, True),
        (0, 2, False),
        (["a"], ["a"], True),
    ],
)
def test_a_fact_is_right_where_truth_was_found(truth: object, found: object, right: bool) -> None:
    assert Fact("question", truth, found).right is right


@pytest.mark.parametrize(("found", "verdict"), [((1, 2), "right"), ((1, 0), "partly"), ((0, 0), "wrong")])
def test_the_verdict_counts_right_answers(found: tuple[int, int], verdict: str) -> None:
    assert judge({"a": 1, "b": 2}, dict(zip("ab", found, strict=True))).verdict == verdict


def test_a_cell_counts_what_was_right_and_lists_what_was_not() -> None:
    truth = {"state": "FAIL", "said": True, "open": 0}
    assert str(judge(truth, {"state": "RUNNING", "said": False, "open": 0})) == (
        "**partly** (1 of 3): state: RUNNING (truth: FAIL); said: no (truth: yes)"
    )
    assert str(judge(truth, truth)) == "**right** (3 of 3)"


def test_answers_must_fit_the_questions() -> None:
    with pytest.raises(KeyError, match="b, c"):
        judge({"a": 1, "b": 2}, {"a": 1, "c": 3})


def test_a_trial_that_stays_running_is_not_taken_for_failed() -> None:
    others = [trial(0.6, TrialState.COMPLETE, 0.5)]
    written = diary((BROKEN, 1), (0.6, 1), (0.6, 2))
    results = [{"config": {"x": BROKEN}, "failed": False, "said": "None r2=nan"}]
    behind = left([trial(BROKEN, TrialState.RUNNING), *others], written, results=results)
    finding = judge(failed(finished=1), traces.how_it_ended(behind, "nan"))
    wrong = {fact.question for fact in finding.facts if not fact.right}
    assert wrong == {traces.STATE, traces.OPEN, traces.STORAGE_SAYS, traces.CALLED_FAILED}


def test_the_cause_counts_where_storage_and_results_name_it() -> None:
    known = trial(BROKEN, TrialState.FAIL, reason="out of memory: in epoch 3")
    results = [{"config": {"x": BROKEN}, "failed": True, "said": "MemoryError: no more memory"}]
    answers = traces.how_it_ended(left([known], diary((BROKEN, 1)), results=results), "out of memory")
    assert answers[traces.STORAGE_SAYS] is True
    assert answers[traces.RESULTS_SAY] is True
    assert traces.how_it_ended(left([known], [], results=results), "timeout")[traces.STORAGE_SAYS] is False


def test_stopped_and_full_trials_are_told_by_the_diary() -> None:
    told = [trial(0.6, TrialState.COMPLETE, 0.5), trial(0.3, TrialState.COMPLETE, 0.1)]
    answers = traces.front(left(told, diary((0.6, 1), (0.6, 2), (0.3, 1)), front=told))
    assert answers[traces.STOPPED_AS] == ["COMPLETE"]
    assert answers[traces.FRONT] == 1


def test_retries_and_new_beginnings_are_counted_from_the_diary() -> None:
    written = diary((BROKEN, 1), (BROKEN, 3), (BROKEN, 1), (SECOND, 3), (SECOND, 3), (SECOND, 3))
    results = [{"config": {"x": BROKEN}, "failed": False, "said": "None r2=0.4"}]
    answers = traces.worker_killed(left([trial(BROKEN, TrialState.COMPLETE, 0.4)], written, results=results))
    assert answers[traces.AGAIN] == 1
    assert answers[traces.CRASHES] == 3
    assert answers[traces.LOSS_SAID] is False


def test_what_two_sessions_lost_or_doubled_is_counted() -> None:
    told = [trial(0.6, TrialState.RUNNING), trial(0.3, TrialState.COMPLETE, 0.1)]
    written = diary((0.6, 1), (0.3, 1), (0.3, 1))
    results = [{"config": {"x": 0.3}}]
    answers = traces.sessions(left(told, written, results=results, rungs=[[1, 4], [1, 7], [2, 0], [2, 3]]))
    assert answers[traces.OPEN] == 1
    assert answers[traces.UNKNOWN] == 1
    assert answers[traces.AGAIN] == 1
    assert answers[traces.RUNGS] == 7


def test_the_table_has_a_row_for_each_scenario_and_the_sums() -> None:
    found = {name: dict.fromkeys(SYSTEMS, Finding((Fact("q", 1, 1), Fact("p", 1, 2)))) for name in SCENARIOS}
    lines = markdown(found).splitlines()
    assert len(lines) == 3 + len(SCENARIOS)
    assert lines[2] == f"| completed |{' **partly** (1 of 2): p: 2 (truth: 1) |' * 2}"
    num = len(SCENARIOS)
    assert lines[-1].startswith(f"| **sum** | {num} of {2 * num} answers right, 0 of {num} scenarios wholly so |")
