"""Where gene tables come from."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from raystudy.data.genes import Genes, GeneTable, write_genes
from raystudy.data.sources import ecoli, genome, synthetic, xpresso, yeast
from raystudy.errors import SpecError

SOURCES: dict[str, Callable[..., GeneTable]] = {
    "yeast": yeast.build,
    "ecoli": ecoli.build,
    "synthetic": synthetic.build,
    "xpresso": xpresso.build,
    "genome": genome.build,
}


def prepare(source: str, out: Path, **options: Any) -> Genes:
    """Make the gene table of ``source`` in the folder ``out`` and open it; where it fails ``out`` is as it was.

    Options and errors are those of `build`.
    """
    return Genes.open(write_genes(build(source, **options), Path(out)))


def build(source: str, **options: Any) -> GeneTable:
    """The gene table of ``source``; ``options`` are the keyword arguments of the source's own ``build``.

    Raises SpecError as `check_options` does, DataError when the source's data cannot be had or read.
    """
    check_options(source, options)
    return SOURCES[source](**options)


def check_options(source: str, options: Collection[str] = ()) -> None:
    """Raises SpecError for an unknown source, an unknown option, and for one that is needed and not given."""
    if source not in SOURCES:
        near = difflib.get_close_matches(source, SOURCES, n=1)
        raise SpecError(
            f"There is no data source {source!r}; known are {', '.join(sorted(SOURCES))}."
            f"{f' Did you mean {near[0]!r}?' if near else ''} Name one of these."
        )
    known = inspect.signature(SOURCES[source]).parameters
    if unknown := sorted(set(options) - set(known)):
        raise SpecError(
            f"The source {source!r} has no option {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(known) or 'none'}. Leave it out, or name one of these."
        )
    needed = {name for name, parameter in known.items() if parameter.default is parameter.empty}
    if missing := sorted(needed - set(options)):
        raise SpecError(
            f"The source {source!r} is made from files of yours and needs {', '.join(map(repr, missing))} as well. "
            f"Give them to `raystudy prepare {source} --out FOLDER`; a study reads what that wrote with "
            f"`data: {{path: FOLDER}}`, or `--data FOLDER`."
        )
