"""What a study says, in a few plain sentences, whichever side it favours and however far it got."""

from __future__ import annotations

from raystudy.report.compare import (
    Finalist,
    best_baseline,
    best_finalist,
    predictions,
    r2_difference,
    shared_genes,
)
from raystudy.report.replicates import Comparison, against_baseline, baseline_identity
from raystudy.tracking.records import JsonObject, StudyRecord


def verdict(record: StudyRecord) -> str:
    """The best finalist against the best baseline: paired over folds or seeds where there are two or more of them."""
    finalist, baseline = best_finalist(record), best_baseline(record)
    if finalist is None or finalist.best_replicate is None:
        return _unfinished(record)
    ours_test = finalist.test("test_r2")
    ours = f"The best network, {finalist.trial}, reaches a validation R2 of {finalist.valid_r2:.3f}"
    if ours_test is None:
        against = "" if baseline is None else f" {_on_validation(record, finalist, baseline)}"
        return f"{ours}{_replicated(finalist)}.{against} The test genes are still sealed."
    scores = record.test_scores.get(finalist.best_replicate.id, {})
    num_genes = scores.get("num_genes")
    ours += f" and a test R2 of {ours_test:.3f}" + (f" on {num_genes:,} sealed genes" if num_genes else "")
    ours += f"{_replicated(finalist)}."
    paired = None if baseline is None else against_baseline(record, finalist, baseline["name"], "test_r2")
    if baseline is None or paired is None or paired.means is None:
        return f"{ours} There is no baseline to hold it against."
    return f"{ours} {_on_test(record, finalist, baseline, paired)}{_averaged(scores)}"


def _replicated(finalist: Finalist) -> str:
    count = len(finalist.completed)
    return f" (means of {count} replicates)" if count > 1 else ""


def _averaged(scores: JsonObject) -> str:
    targets = sorted(key.removeprefix("test_r2_") for key in scores if key.startswith("test_r2_"))
    targets = [target for target in targets if target != "best_epoch"]
    return f" Every R2 here is the mean over {' and '.join(targets)}." if targets else ""


def _on_validation(record: StudyRecord, finalist: Finalist, baseline: JsonObject) -> str:
    paired = against_baseline(record, finalist, baseline["name"], "valid_r2")
    ours, theirs = paired.means or (finalist.valid_r2 or 0.0, baseline["valid_r2"])
    reaches = f"The best baseline, {baseline['name']}, reaches {theirs:.3f}"
    if paired.sample.interval is not None:
        return f"{reaches}. So far {paired.verdict}"
    return f"{reaches}: so far the {'network' if ours > theirs else 'baseline ' + baseline['name']} leads."


def _on_test(record: StudyRecord, finalist: Finalist, baseline: JsonObject, paired: Comparison) -> str:
    name, difference = baseline["name"], paired.sample.mean or 0.0
    on_validation = against_baseline(record, finalist, name, "valid_r2").means
    valid, test = on_validation[1] if on_validation else baseline["valid_r2"], paired.means[1] if paired.means else 0.0
    reaches = f"The best baseline, {name}, reaches {valid:.3f} and {test:.3f}."
    interval = _over_genes(record, finalist, name)
    words = "95 % interval of network minus baseline over the choice of genes: {:+.3f} to {:+.3f}"
    if paired.sample.interval is not None:
        genes = f" Of one replicate alone, {words.format(*interval)}." if interval else ""
        return f"{reaches} {paired.verdict}{genes}"
    favours = f"{reaches} On the test genes the difference of {abs(difference):.3f} favours "
    favours += "the network" if difference > 0 else f"the baseline {name}"
    if interval is None:
        return f"{favours}; how sure that is cannot be said without both predictions."
    if interval[0] <= 0 <= interval[1]:
        return f"{favours}, but other test genes could have turned it round ({words.format(*interval)})."
    return f"{favours}, and other test genes would hardly have changed that ({words.format(*interval)})."


def _over_genes(record: StudyRecord, finalist: Finalist, baseline: str) -> tuple[float, float] | None:
    """The interval of the best replicate's lead over the choice of test genes; None without both predictions."""
    replicate = finalist.best_replicate
    if replicate is None:
        return None
    identities = (replicate.id, baseline_identity(record, baseline, replicate.fold))
    ours, theirs = (predictions(record, one, "test") for one in identities)
    if ours is None or theirs is None or not shared_genes(ours, theirs):
        return None
    return r2_difference(ours, theirs)


def _unfinished(record: StudyRecord) -> str:
    finite = [trial for trial in record.trials if trial.valid_r2 is not None]
    if not finite:
        return f"Nothing can be said yet: none of {len(record.trials)} trials has a validation R2."
    best = max(finite, key=lambda trial: trial.valid_r2 or 0.0)
    return (
        f"Not decided yet: the best of {len(record.trials)} trials so far is {best.id} with a validation R2 "
        f"of {best.valid_r2:.3f}; no finalist is done and the test genes are sealed."
    )
