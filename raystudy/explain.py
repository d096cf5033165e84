"""What a prediction hangs on: every base, or residue, of a gene replaced by every other (in-silico mutagenesis).

Exact: each mutant is predicted as a gene of its own, all else held as it is. A DNA window that reaches into the coding
sequence is mutated alone: the protein, which another branch may read, stays. Always in fp32, for in bf16 the rounding
of a prediction (3 digits) is larger than what one base does. Shapes: P positions, S symbols, K targets.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from raystudy.data.encode import DNA_SYMBOLS, PROTEIN_SYMBOLS
from raystudy.data.sequences import Ragged, Sequences
from raystudy.data.streams import CHUNK_GENES, Table, chunks_of
from raystudy.errors import DataError, SpecError
from raystudy.report.drawing import BLUE, INK, ORANGE, STYLE, legend_below
from raystudy.training.trained import Predictor

Mutated = Literal["dna", "protein"]
_SYMBOLS = {"dna": DNA_SYMBOLS, "protein": PROTEIN_SYMBOLS}
_ALTERNATIVES = {"dna": range(1, 5), "protein": range(1, 21)}  # no N; neither U nor X
_ROWS = {"dna": "ACGT", "protein": "GAVLIMCPFYWSTNQHKRDE"}  # residues by their chemistry, as alignments show them
_MOST_LETTERS = 120
"""Positions up to which the figure names each one's base."""
_MOST_COLUMNS = 2400
"""A heatmap's, so that none is lost between the pixels of the widest figure."""


@dataclass(frozen=True)
class Effects:
    """What each substitution in one gene changes."""

    gene_id: str
    mutated: Mutated
    targets: tuple[str, ...]
    predicted: NDArray[np.float64]
    """Of the gene as it is, in the labels' own units, [K]."""
    positions: NDArray[np.int64]
    """[P]: of DNA relative to the TSS or CDS start, which is 0, negative upstream, in the gene's own direction; of a
    protein the number of the residue, from 1."""
    reference: str
    """The symbols there, P of them."""
    alternatives: str
    changes: NDArray[np.float64]
    """[P, S, K]: prediction of the mutant less ``predicted``; NaN where the alternative is what is there."""


def find_gene(table: Table, gene_id: str, model: Predictor, anchor: int | None = None) -> Sequences:
    """One gene of a table, with what the model reads. DataError, with the nearest id, where there is no such gene."""
    known = list[str]()
    for chunk in chunks_of(table, model.inputs, anchor=anchor):
        ids = chunk.gene_ids.tolist()
        if gene_id in ids:
            return chunk.take(np.array([ids.index(gene_id)]))
        known += ids
    near = difflib.get_close_matches(gene_id, known, n=1, cutoff=0)[0]
    raise DataError(f"there is no gene {gene_id!r} among the {len(known)} given; the nearest id is {near!r}")


def mutate(
    model: Predictor,
    gene: Sequences,
    mutated: Mutated,
    region: tuple[int, int] | None = None,
    batch_size: int | None = None,
    on_mutants: Callable[[int, int], None] = lambda done, all_of_them: None,
) -> Effects:
    """Predict every substitution in one gene's DNA window or protein, or in the part [from, to) of it.

    ``region`` counts as `Effects.positions` does; ``on_mutants`` is told how many of how many are done.
    Raises SpecError where the model does not read what is to be mutated, or the region lies outside.
    """
    if mutated not in model.inputs:
        raise SpecError(f"this model reads {_listed(model.inputs)}, so there is no {mutated} to mutate for it")
    gene = _as_read(gene, model)
    [predicted] = next(iter(model.predict_chunks(gene, precision="fp32")))[list(model.targets)].to_numpy()
    tokens, first = (gene.dna.tokens, -model.model.window_bp[0]) if mutated == "dna" else (gene.protein.tokens, 1)
    start, stop = region or (first, first + len(tokens))
    if not first <= start < stop <= first + len(tokens):
        raise SpecError(
            f"of the {mutated} of {gene.gene_ids[0]} the model reads [{first}, {first + len(tokens)}), and a region "
            f"must lie in that, but [{start}, {stop}) was asked for"
        )
    places = [
        (place, symbol)
        for place in range(start - first, stop - first)
        for symbol in _ALTERNATIVES[mutated]
        if symbol != tokens[place]
    ]
    alternatives = _ALTERNATIVES[mutated]
    changes = np.full((stop - start, len(alternatives), len(model.targets)), np.nan)
    done = 0
    for levels in model.predict_chunks(_mutants(gene, mutated, places), batch_size=batch_size, precision="fp32"):
        part = np.array(places[done : done + len(levels)])
        rows, columns = part[:, 0] - (start - first), part[:, 1] - alternatives.start
        changes[rows, columns] = levels[list(model.targets)].to_numpy() - predicted
        done += len(levels)
        on_mutants(done, len(places))
    symbols = _SYMBOLS[mutated]
    return Effects(
        str(gene.gene_ids[0]),
        mutated,
        model.targets,
        predicted,
        np.arange(start, stop),
        "".join(symbols[token] for token in tokens[start - first : stop - first]),
        "".join(symbols[token] for token in alternatives),
        changes,
    )


def _as_read(gene: Sequences, model: Predictor) -> Sequences:
    """The gene with no more of its DNA and protein than the model reads."""
    if "dna" in model.inputs and not gene.lacking("dna").any():
        window = gene.windows(model.model.window_bp)[0]
        gene = replace(gene, dna=Ragged.of([window]), anchor=model.model.window_bp[0])
    return replace(gene, protein=Ragged.of([gene.protein.part(0)[: model.model.max_protein]]))


def _mutants(gene: Sequences, mutated: Mutated, places: list[tuple[int, int]]) -> Iterator[Sequences]:
    for first in range(0, len(places), CHUNK_GENES):
        part = places[first : first + CHUNK_GENES]
        copies = gene.take(np.zeros(len(part), np.int64))
        ragged = getattr(copies, mutated)
        for row, (place, symbol) in enumerate(part):
            ragged.part(row)[place] = symbol
        yield replace(copies, gene_ids=np.array([f"{place} {symbol}" for place, symbol in part]))


def file_stem(gene_id: str, mutated: Mutated, region: tuple[int, int] | None) -> str:
    """What files about one gene are called: no two genes, inputs or regions alike; no id leads to another folder."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", gene_id).lstrip(".")[:100]
    if safe != gene_id:
        safe += f"-{hashlib.sha256(gene_id.encode()).hexdigest()[:8]}"
    return f"{safe}-{mutated}" + (f"_{region[0]}_{region[1]}" if region else "")


def _listed(inputs: frozenset[Any]) -> str:
    return ", ".join(sorted(inputs))


def write_table(effects: Effects, path: Path) -> None:
    """A row a substitution, TSV: position, reference, alternative, and the change of each target in its own units."""
    header = ["position", "reference", "alternative", *(f"{target}_change" for target in effects.targets)]
    lines = ["\t".join(header)]
    for row, (position, reference) in enumerate(zip(effects.positions.tolist(), effects.reference, strict=True)):
        for column, alternative in enumerate(effects.alternatives):
            if alternative != reference:
                values = effects.changes[row, column].tolist()
                lines.append("\t".join([str(position), reference, alternative, *(f"{value:.6g}" for value in values)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw(effects: Effects, paths: list[Path]) -> None:
    """A heatmap of each target's changes over the positions, under a track of their mean and extremes; SVG or PNG."""
    num_positions, K = len(effects.positions), len(effects.targets)
    what, rows = ("residue", 2.6) if effects.mutated == "protein" else ("base", 1.0)
    lettered = num_positions <= _MOST_LETTERS
    width = float(np.clip(num_positions / (12 if lettered else 80), 7, 18))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, (1.2 + rows) * K + 1.3), layout="constrained")
        panels = figure.subplots(2 * K, 1, sharex=True, height_ratios=[1.2, rows] * K)
        for number, target in enumerate(effects.targets):
            _draw_target(effects, number, target, *panels[2 * number : 2 * number + 2])
            if lettered:
                above = panels[2 * number + 1].secondary_xaxis("top")
                above.set_xticks(effects.positions.tolist(), list(effects.reference), fontsize=7, family="monospace")
                above.tick_params(length=0, pad=1)
        dna = "bp from the TSS or CDS start (0), in the gene's direction"
        panels[-1].set_xlabel(what if effects.mutated == "protein" else dna)
        levels = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(effects.targets, effects.predicted, strict=True)
        )
        figure.suptitle(f"{effects.gene_id}: what each {what} does to the prediction ({levels})", fontsize=10)
        legend_below(panels[0])
        for path in paths:
            figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_target(effects: Effects, number: int, target: str, track: Any, heatmap: Any) -> None:
    changes = effects.changes[:, :, number]
    x = effects.positions
    track.axhline(0, color=INK, linewidth=0.5)
    track.fill_between(
        x, np.nanmin(changes, axis=1), np.nanmax(changes, axis=1), step="mid", color=BLUE, alpha=0.3, linewidth=0,
        label="lowest to highest of the alternatives",
    )  # fmt: skip
    track.step(x, np.nanmean(changes, axis=1), where="mid", color=ORANGE, linewidth=0.8, label="their mean")
    track.set_ylabel(f"change of\n{target}")
    rows = _ROWS[effects.mutated]
    positions_a_column = -(-len(x) // _MOST_COLUMNS)
    shown = _binned(changes[:, [effects.alternatives.index(symbol) for symbol in rows]], positions_a_column).T
    largest = float(np.nanquantile(np.abs(changes), 0.995)) or 1.0  # one position must not bleach all others
    edges = (x[0] - 0.5, x[0] - 0.5 + positions_a_column * shown.shape[1], len(rows) - 0.5, -0.5)
    image = heatmap.imshow(
        shown, aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest, extent=edges, interpolation="nearest"
    )
    heatmap.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    heatmap.set_facecolor("#D5D9DD")  # what is there
    heatmap.grid(visible=False)
    heatmap.set_yticks(range(len(rows)), list(rows), fontsize=6 if len(rows) > 4 else 8)
    heatmap.set_ylabel("becomes")
    bar = heatmap.figure.colorbar(image, ax=heatmap, extend="both", pad=0.01, fraction=0.05)
    bar.ax.tick_params(labelsize=7)


def _binned(changes_PS: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Of so many neighbouring positions the change that is largest in size, for each symbol; [ceil(P / size), S]."""
    padded = np.pad(changes_PS, ((0, -len(changes_PS) % size), (0, 0)), constant_values=np.nan)
    bins = padded.reshape(-1, size, padded.shape[1])
    largest = np.nan_to_num(np.abs(bins), nan=-1).argmax(axis=1, keepdims=True)
    return np.take_along_axis(bins, largest, axis=1)[:, 0]
