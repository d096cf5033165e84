"""MMseqs2, a fast search for similar proteins, run as a program of its own over all proteins against all."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raystudy.data.encode import PROTEIN_SYMBOLS, PROTEIN_UNKNOWN
from raystudy.errors import DataError

PROGRAM = "mmseqs"
IDENTITY, COVERAGE, E_VALUE = 0.30, 0.50, 1e-3
RULE = f"an alignment with {IDENTITY:.0%} identity over {COVERAGE:.0%} of one of the two, e-value at most {E_VALUE:g}"
_MOST_HITS = 1000  # of one protein, the best ones; the usual 300 could tear a very large family apart
_TOLD_LINES = 5
_FEWEST_RESIDUES = 14  # below which it cannot make a 6-mer with its spaces
# Nothing that a machine's memory or number of cores would otherwise choose is left to the program.
_FIXED = ("--dbtype", "1", "--split", "1", "-k", "6", "-s", "4", "--max-seqs", str(_MOST_HITS), "-v", "1")
# Coverage of the target: in all against all each of two proteins is the target once.
_CRITERION = ("--min-seq-id", str(IDENTITY), "--cov-mode", "1", "-c", str(COVERAGE), "-e", str(E_VALUE))


def installed() -> bool:
    return shutil.which(PROGRAM) is not None


def version() -> str:
    """What the program calls itself; DataError when it cannot be run."""
    return _run([PROGRAM, "version"]).strip()


def similar_pairs(
    protein_tokens: NDArray[np.uint8], protein_offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of similar proteins as two arrays of indices, each pair at least once, a protein with itself too.

    Similar: an alignment with an identity of at least ``IDENTITY`` that covers at least ``COVERAGE`` of one of the
    two, at an e-value of at most ``E_VALUE``. Low-complexity stretches do not start an alignment.
    The result is the same with any number of cores. Raises DataError when the program fails.
    Source: Steinegger & Soeding, Nature Biotechnology 35, 2017.
    """
    left, right, _ = alignments(protein_tokens, protein_offsets)
    return left, right


def alignments(
    protein_tokens: NDArray[np.uint8], protein_offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The pairs of `similar_pairs`, and the identity of each one's alignment, 0 to 1."""
    with tempfile.TemporaryDirectory(prefix="raystudy-mmseqs-") as folder:
        fasta, hits = Path(folder, "proteins.fasta"), Path(folder, "hits.tsv")
        if not _write_fasta(protein_tokens, protein_offsets, fasta):
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        search = [PROGRAM, "easy-search", str(fasta), str(fasta), str(hits), str(Path(folder, "search"))]
        threads = ["--threads", str(os.cpu_count() or 1)]
        _run([*search, *_FIXED, *_CRITERION, *threads, "--format-output", "query,target,fident"])
        found = np.fromfile(hits, sep=" ").reshape(-1, 3)
    return found[:, 0].astype(np.int64), found[:, 1].astype(np.int64), found[:, 2]


def _write_fasta(tokens: NDArray[np.uint8], offsets: NDArray[np.int64], path: Path) -> int:
    """Proteins named by their index, without those too short to be searched; how many were written."""
    letters = np.frombuffer(PROTEIN_SYMBOLS.encode(), np.uint8)[tokens]
    num_known = np.diff(np.concatenate([[0], np.cumsum(tokens != PROTEIN_UNKNOWN)])[offsets])
    filled = np.flatnonzero(num_known >= _FEWEST_RESIDUES)
    with path.open("wb") as file:
        for index in filled.tolist():
            file.write(b">%d\n%b\n" % (index, letters[offsets[index] : offsets[index + 1]].tobytes()))
    return len(filled)


def _run(command: list[str]) -> str:
    """What the command prints; DataError with its last lines when it fails."""
    # It refuses to start where the OpenMP library was told how to place threads.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MMSEQS_"))}
    try:
        ended = subprocess.run(command, capture_output=True, env=environment, check=False)  # noqa: S603
    except OSError as error:
        raise _failed(command, str(error)) from None
    if ended.returncode:
        told = (ended.stdout + ended.stderr).decode(errors="replace").strip().splitlines()
        raise _failed(command, f"exit status {ended.returncode}: {' | '.join(told[-_TOLD_LINES:]) or 'without a word'}")
    return ended.stdout.decode(errors="replace")


def _failed(command: list[str], why: str) -> DataError:
    return DataError(
        f"MMseqs2 ({command[0]} {command[1]}) failed on the proteins: {why}. See that there is room in "
        f"{tempfile.gettempdir()} (TMPDIR) and memory enough, or find families without it: `--homology kmer`."
    )
