"""Prepared genes as a user of the registered model gives them: texts and numbers in a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from raystudy.data.encode import DNA_SYMBOLS, FEATURES
from raystudy.data.genes import TABLE, Genes


def genes_frame(folder: Path, window_bp: tuple[int, int]) -> pd.DataFrame:
    windows = Genes.open(folder).windows(window_bp)
    frame = pq.read_table(folder / TABLE, columns=["gene_id", "protein", "cds", *FEATURES]).to_pandas()
    return frame.assign(window=["".join(DNA_SYMBOLS[token] for token in window) for window in windows])
