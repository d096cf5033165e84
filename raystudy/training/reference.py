"""What the reference protocol keeps besides: every epoch's predictions of the test genes, for the published number.

Published work often reports the epoch that is best on the test genes. These predictions tell by how much that is too
good. They are predictions only: no test label is read here, and nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from raystudy.data.batches import Floats, StudyData
from raystudy.data.splits import Rows
from raystudy.errors import DataError
from raystudy.training import checkpoint
from raystudy.training.loop import AfterEpoch
from raystudy.training.session import Session

TEST_EPOCHS = "test_epochs.safetensors"


def keep_test_epochs(data: StudyData, session: Session) -> AfterEpoch:
    """What `train` calls after each epoch to have the test genes' predictions of all epochs in the session folder.

    Those of an epoch that was lost with its process, and is trained again, are replaced.
    """

    def keep(epoch: int, predict_rows: Callable[[Rows], Floats]) -> None:
        predicted = data.label_scale.to_unit(predict_rows(data.split.test))[np.newaxis]
        if session.rank:
            return
        before = read_test_epochs(session.folder, epoch - 1) if epoch > 1 else predicted[:0]
        kept = torch.from_numpy(np.concatenate([before, predicted]).astype(np.float32))
        checkpoint.save(session.folder / TEST_EPOCHS, {"predicted": kept}, {"units": "own", "epochs": epoch})

    return keep


def read_test_epochs(folder: Path, num_epochs: int) -> npt.NDArray[np.float32]:
    """The first epochs' predictions of the test genes in the labels' own units, [num_epochs, num_test, K].

    Raises DataError when the folder of the finalist does not have that many.
    """
    tensors, _ = checkpoint.load(folder / TEST_EPOCHS)
    predicted = tensors["predicted"].numpy()
    if len(predicted) < num_epochs:
        raise DataError(
            f"{folder / TEST_EPOCHS} has the predictions of {len(predicted)} epochs, but {num_epochs} were trained; "
            "remove the finalist's folder to have it trained again"
        )
    return predicted[:num_epochs]
