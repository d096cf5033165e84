"""An export as MLflow's pyfunc model. This file is copied beside the export, and runs where the model is loaded.

Never imported by raystudy: MLflow executes it, and asks `set_model` for the model.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

import raystudy


class ExportedModel(PythonModel):
    """``predict`` takes a row a gene, with the columns of the signature (what each holds: the version's description).

    It gives ``gene_id`` and a column a target in the labels' own units, of an ensemble also its interval as
    ``<target>_low`` and ``<target>_high``; rows are in the order given. Raises DataError, naming the gene, where
    something that the networks read is missing.
    """

    def load_context(self, context: PythonModelContext) -> None:
        self._model: Any = raystudy.load(context.artifacts["model"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        return self._model.predict(model_input).reset_index()


set_model(ExportedModel())
