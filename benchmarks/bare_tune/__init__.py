"""What bare Ray Tune with OptunaSearch makes of every ending a trial can have: ``python -m benchmarks.bare_tune``.

Each scenario (`scenarios`) runs for real on one local Ray with a trainable that reports a known curve and saves small
checkpoints, written as Tune's documentation does it (`tune_sessions`), and again with raystudy's `SearchPolicy`, whose
trainer is played in-process (`our_sessions`). Whoever trains keeps a diary of what was really trained (`script`),
which is the truth; afterwards the same questions are put to the storage and the results of both (`traces`).

What Ray reads while it is imported is set here, before any module of this package can.
"""

import os

# raystudy switches off what Tune does at Ctrl-C and the files that `Tuner.restore` reads; here it is to have them. And
# it is to save as often, for a search of seconds, as it does by itself (every 10 s) for one of minutes.
os.environ |= {
    "TUNE_DISABLE_SIGINT_HANDLER": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}
import raystudy.execution  # noqa: F401  # keeps Ray on the loopback interface, so it comes before Ray
