"""What a study measured of the models that are exported, beside its best baseline, whichever of the two it favours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raystudy.report.compare import Pairs, best_baseline, finalists, r2_difference, r2_interval
from raystudy.report.conformal import mean_predictions
from raystudy.report.replicates import baseline_identity
from raystudy.tracking.records import JsonObject, StudyRecord, TrialRecord
from raystudy.training.metrics import scores


def measured_numbers(record: StudyRecord, replicates: Sequence[TrialRecord]) -> JsonObject:
    """R2 and Pearson r2 of these together, on the validation genes and, once they are open, on the test genes.

    Where there are several replicates their mean prediction is measured. What was not measured is None.
    """
    searched = replicates[0].id.rpartition("-r")[0] or replicates[0].id
    names = [one.id for one in replicates]
    valid, test = mean_predictions(record, names, "valid"), _opened(record, names)
    found = {
        "search_valid_r2": next((trial.valid_r2 for trial in record.trials if trial.id == searched), None),
        **_measures("valid", valid),
        **_measures("test", test),
        "test_openings": len(record.every("test_opened")),
        "replicates": [
            {
                "id": one.id,
                "fold": one.fold,
                "valid_r2": one.valid_r2,
                "test_r2": record.test_scores.get(one.id, {}).get("test_r2"),
            }
            for one in replicates
        ],
        "finalist": _finalist(record, searched) if replicates[0].origin == "finalist" else None,
        "baseline": _baseline(record, replicates, valid, test),
    }
    if valid is None and len(replicates) == 1:  # a trial of the search, whose predictions nobody kept
        found["valid_r2"] = replicates[0].valid_r2
    return found | {"conclusion": _conclusion(found)}


def _finalist(record: StudyRecord, trial: str) -> JsonObject:
    """Means over all completed replicates of the one that these are of: what is left without choosing among them."""
    whole = next(one for one in finalists(record) if one.trial == trial)
    best = whole.best_replicate
    return {
        "trial": trial,
        "num_replicates": len(whole.completed),
        "best_replicate": best and best.id,
        "mean_valid_r2": whole.valid_r2,
        "mean_test_r2": whole.test("test_r2"),
    }


def _opened(record: StudyRecord, names: Sequence[str]) -> Pairs | None:
    """Their mean prediction of the test genes; None while these are sealed."""
    return mean_predictions(record, names, "test") if all(name in record.test_scores for name in names) else None


def _measures(part: str, pairs: Pairs | None) -> JsonObject:
    keys = ("r2", "pearson_r2", "spearman")
    if pairs is None:
        return {f"num_{part}_genes": None, **{f"{part}_{key}": None for key in keys}, f"{part}_r2_interval": None}
    targets, genes = sorted(pairs), sorted(set().union(*pairs.values()))
    unknown = (np.nan, np.nan)
    levels = np.array([[pairs[target].get(gene, unknown) for target in targets] for gene in genes])
    found = {f"{part}_{key}": value for key, value in scores(levels[..., 1], levels[..., 0], targets).items()}
    return {f"num_{part}_genes": len(genes), **found, f"{part}_r2_interval": r2_interval([pairs])}


def _baseline(
    record: StudyRecord, replicates: Sequence[TrialRecord], valid: Pairs | None, test: Pairs | None
) -> JsonObject | None:
    """The best by validation, fitted on the same folds, its mean prediction where these are several."""
    best = best_baseline(record)
    if best is None:
        return None
    names = sorted(
        {
            baseline_identity(record, best["name"], one.fold) if one.origin == "finalist" else best["name"]
            for one in replicates
        }
    )
    their_valid, their_test = mean_predictions(record, names, "valid"), _opened(record, names)
    ours, theirs = (test, their_test) if test and their_test else (valid, their_valid)
    found = {
        "name": best["name"],
        **_measures("valid", their_valid),
        **_measures("test", their_test),
        "difference_on": None,
        "difference_interval": None,
    }
    if ours and theirs:
        found["difference_on"] = "test" if ours is test else "validation"
        found["difference_interval"] = r2_difference(ours, theirs)
    return found


def _conclusion(found: JsonObject) -> str:
    """Network against baseline in a sentence."""
    baseline = found["baseline"]
    if baseline is None:
        return "The study had no baseline to hold this against."
    if baseline["difference_interval"] is None:
        return f"It was not compared with the study's best baseline, {baseline['name']}, on the same genes."
    part = baseline["difference_on"].removesuffix("ation")
    low, high = baseline["difference_interval"]
    favoured = " These genes chose the network, which favours it; on the test genes it was not compared."
    difference = found[f"{part}_r2"] - baseline[f"{part}_r2"]
    shown = (
        f"R2 {found[f'{part}_r2']:.3f} against {baseline[f'{part}_r2']:.3f} on the {baseline['difference_on']} genes; "
        f"the difference is {difference:+.3f}, 95 % interval over the choice of genes {low:+.3f} to {high:+.3f}"
    )
    if low > 0:
        verdict = f"The network is better than the best baseline, {baseline['name']} ({shown})."
    elif high < 0:
        verdict = f"The best baseline, {baseline['name']}, is better than the network ({shown})."
    else:
        verdict = f"The network and the best baseline, {baseline['name']}, cannot be told apart ({shown})."
    return verdict + (favoured if part == "valid" else "")
