"""What more training genes are worth: validation R2 against their number, of each baseline and of the network."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from raystudy.report.compare import finalists
from raystudy.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, clip_r2, inline_svg, legend_below
from raystudy.report.replicates import num_folds
from raystudy.tracking.records import JsonObject, StudyRecord


def training_sizes(record: StudyRecord) -> list[JsonObject]:
    """Points {model, kind, name, fraction, num_train, valid_r2, epochs} by model and size; empty where none was tried.

    ``model`` is a baseline or a finalist's trial, ``name`` the training behind the point. All training genes
    (fraction 1) are what the baselines and that finalist were trained on anyway; of a finalist it is the mean over
    its seeds, and left out where it was trained on folds, which have other validation genes.
    """
    tried = {(line["name"], line["fraction"]): line for line in record.every("training_size")}
    if not tried:
        return []
    points = [
        {
            **{key: line[key] for key in ("model", "kind", "name", "fraction", "num_train", "valid_r2")},
            "epochs": line.get("epochs"),
        }
        for line in tried.values()
    ]
    points += _whole(record, {point["model"] for point in points})
    return sorted(points, key=lambda point: (point["kind"], point["model"], point["num_train"]))


def _whole(record: StudyRecord, models: set[str]) -> list[JsonObject]:
    """The points of all training genes."""
    session = record.last("session_started") or {}
    num_train = (session.get("split") or {}).get("train")
    if num_train is None:
        return []
    whole = {"fraction": 1.0, "num_train": num_train}
    points: list[JsonObject] = [
        {"model": line["name"], "kind": "baseline", "name": line["name"], **whole}
        | {"valid_r2": line["valid_r2"], "epochs": None}
        for line in record.baselines
    ]
    for one in finalists(record) if num_folds(record) == 1 else []:
        if one.best_replicate is not None:
            known = {"valid_r2": one.valid_r2, "epochs": len(one.best_replicate.epochs)}
            points.append({"model": one.trial, "kind": "network", "name": one.best_replicate.id, **whole, **known})
    return [point for point in points if point["model"] in models]


def size_figure(record: StudyRecord) -> str | None:
    """Validation R2 by the number of training genes, a line for each model; None where no part was tried."""
    points = [point for point in training_sizes(record) if point["valid_r2"] is not None]
    if not points:
        return None
    networks = sorted({point["model"] for point in points if point["kind"] == "network"})
    models = [*networks, *sorted({point["model"] for point in points if point["kind"] == "baseline"})]
    baselines = iter((ORANGE, GREEN, PURPLE, INK, GREY))

    def draw(axes: Axes) -> None:
        axes.set_xscale("log", base=2)
        for model in models:
            sizes, heights = zip(
                *((one["num_train"], clip_r2(one["valid_r2"])) for one in points if one["model"] == model), strict=True
            )
            if model in networks:
                axes.plot(sizes, heights, "o-", color=BLUE, label=f"{model} (network)")
            else:
                axes.plot(sizes, heights, "s--", color=next(baselines, GREY), label=model, ms=5)
        axes.xaxis.set_major_locator(FixedLocator(_apart({one["num_train"] for one in points})))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("training genes")
        axes.set_ylabel("validation R²")
        legend_below(axes)

    return inline_svg(draw, f"Training-set size: validation R2 of {len(models)} models by the number of training genes")


def _apart(sizes: set[int]) -> list[int]:
    """The sizes that have room for a label: the largest, and each that is at most four fifths of the one before."""
    kept: list[int] = []
    for size in sorted(sizes, reverse=True):
        if not kept or size <= 0.8 * kept[-1]:
            kept.append(size)
    return kept
