"""Where gene tables come from."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raystudy.data.genes import Genes, GeneTable, write_genes
from raystudy.data.sources import synthetic, yeast
from raystudy.errors import SpecError

SOURCES: dict[str, Callable[..., GeneTable]] = {"yeast": yeast.build, "synthetic": synthetic.build}


def prepare(source: str, out: Path, **options: Any) -> Genes:
    """Make the gene table of ``source`` in the folder ``out`` and open it.

    ``options`` are the keyword arguments of the source's ``build``. Raises SpecError for an unknown source or
    option, DataError when the source's data cannot be had; ``out`` is then as it was.
    """
    if source not in SOURCES:
        near = difflib.get_close_matches(source, SOURCES, n=1)
        raise SpecError(
            f"There is no data source {source!r}; known are {', '.join(sorted(SOURCES))}."
            f"{f' Did you mean {near[0]!r}?' if near else ''} Name one of these."
        )
    build = SOURCES[source]
    known = inspect.signature(build).parameters
    if unknown := sorted(set(options) - set(known)):
        raise SpecError(
            f"The source {source!r} has no option {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(known) or 'none'}. Leave it out, or name one of these."
        )
    return Genes.open(write_genes(build(**options), Path(out)))
