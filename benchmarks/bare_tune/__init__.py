"""What bare Ray Tune with OptunaSearch makes of every ending a trial can have: ``python -m benchmarks.bare_tune``.

Each scenario (`scenarios`) runs for real on one local Ray with a trainable that reports a known curve and saves small
checkpoints, written as Tune's documentation does it (`tune_sessions`), and again with raystudy's `SearchPolicy`, whose
trainer is played in-process (`our_sessions`). Whoever trains keeps a diary of what was really trained (`script`),
which is the truth; afterwards the same questions are put to the storage and the results of both (`traces`).

What Ray reads while it is imported is set by the import here, before any module of this package can.
"""

import raystudy.execution  # noqa: F401  # keeps Ray on the loopback interface, so it comes before Ray
