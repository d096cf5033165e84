"""Families by MMseqs2, beside those by k-mers, on planted ones; and what is said when the program fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from raystudy.data import mmseqs
from raystudy.data.encode import tokenize_protein
from raystudy.data.homology import DISTANT_SHARED, families, find_families
from raystudy.errors import DataError

AMINO_ACIDS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
needs_mmseqs = pytest.mark.skipif(shutil.which("mmseqs") is None, reason="MMseqs2 is not installed (apt: mmseqs2)")


def pack(proteins: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    tokens = [tokenize_protein(protein) for protein in proteins]
    return np.concatenate(tokens), np.concatenate([[0], np.cumsum([len(part) for part in tokens])])


def protein(random: np.random.Generator, length: int) -> str:
    return "".join(random.choice(AMINO_ACIDS, length))


def relative(random: np.random.Generator, original: str, identity: float, stretch: int = 12) -> str:
    """A homolog as evolution makes them: stretches that are kept almost as they are, between ones that are not.

    ``stretch: 1`` changes any residue as likely as any other.
    """
    kept, changed = (0.97, 2 * identity - 0.97) if stretch > 1 else (identity, identity)
    residues = list(original)
    for at in range(len(residues)):
        if random.random() > (kept if at // stretch % 2 else changed):
            residues[at] = str(random.choice(AMINO_ACIDS[residues[at] != AMINO_ACIDS]))
    return "".join(residues)


def planted() -> tuple[list[str], list[int]]:
    """Proteins and the family that each was planted in: relatives, fragments, repeats, and many that have none."""
    random = np.random.default_rng(7)
    proteins, planted_in = [], []
    for number, identity in enumerate((0.60, 0.65, 0.70, 0.80, 0.90, 0.95)):
        original = protein(random, 150 + 60 * number)
        members = [original, relative(random, original, identity), relative(random, original, identity)]
        proteins += [*members, relative(random, original[len(original) // 2 :], identity)]
        planted_in += 4 * [number]
    copied = protein(random, 9)
    alone = [protein(random, int(length)) for length in random.integers(30, 700, 60)]
    repeats = [protein(random, 300) + relative(random, "Q" * 40, 0.9, stretch=1) for _ in range(5)]
    proteins += [copied, copied, *repeats, *alone, "XXXXXXXXXXXXXXX", "MK", ""]
    planted_in += [6, 6, *range(7, 7 + len(repeats) + len(alone) + 3)]
    order = random.permutation(len(proteins))
    return [proteins[row] for row in order], [planted_in[row] for row in order]


def partition(labels: list[int]) -> set[frozenset[int]]:
    return {frozenset(row for row, one in enumerate(labels) if one == label) for label in labels}


@pytest.mark.parametrize("engine", ["kmer", pytest.param("mmseqs2", marks=needs_mmseqs)])
def test_planted_families_are_found_and_nothing_else_is_linked(engine: Literal["kmer", "mmseqs2"]) -> None:
    proteins, planted_in = planted()
    found = families(*pack(proteins), min_shared=DISTANT_SHARED, engine=engine)
    assert partition(found.tolist()) == partition(planted_in)


@needs_mmseqs
def test_relatives_without_a_kept_stretch_are_found_by_mmseqs2_only() -> None:
    random = np.random.default_rng(2)
    originals = [protein(random, 300) for _ in range(4)]
    pairs = [one for original in originals for one in (original, relative(random, original, 0.45, stretch=1))]
    tokens, offsets = pack(pairs)
    assert families(tokens, offsets, min_shared=DISTANT_SHARED).tolist() == list(range(8))
    found, how = find_families([tokenize_protein(one) for one in pairs], "mmseqs2")
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert how["engine"].removeprefix("MMseqs2 ") == mmseqs.version() != ""
    assert how["rule"].startswith(
        "an alignment with 30% identity over 50% of one of the two, e-value at most 0.001; or"
    )


@needs_mmseqs
@pytest.mark.slow
def test_the_number_of_cores_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, _ = planted()
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        left, right = mmseqs.similar_pairs(*pack(proteins))
        found.append(sorted(zip(left.tolist(), right.tolist(), strict=True)))
    assert found[0] == found[1] != []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a shell script in the place of the program."""

    def put(script: str) -> Path:
        program = tmp_path / "bin" / "mmseqs"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return tmp_path

    return put


PROTEINS = ("ACDEFGHIKLACDE", "", "MNPQRSTVWYUXMNP", "MKXXXXXXXXXXXXXXX")


def test_a_failure_is_told_with_the_last_lines_and_leaves_nothing_behind(
    fake: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake('for line in 1 2 3 4 5 6; do echo "line $line" >&2; done; exit 3') / "with a space"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with pytest.raises(DataError, match=r"exit status 3: line 2 \| .* \| line 6\. .*TMPDIR.*`--homology kmer`"):
        families(*pack(list(PROTEINS)), engine="mmseqs2")
    assert list(folder.iterdir()) == []


def test_a_program_that_cannot_run_or_is_killed_is_told(
    fake: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake("kill -9 $$") / "bin" / "mmseqs"
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(DataError, match="exit status -9: without a word"):
        mmseqs.version()
    program.write_text("#!/no/such/shell\n")
    with pytest.raises(DataError, match="No such file"):
        mmseqs.version()


def test_what_the_program_answers_becomes_pairs_of_indices(
    fake: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    keep = 'cp "$2" "$KEPT/in.fasta"; env > "$KEPT/env"; printf "0\\t2\\t0.412\\n2\\t2\\t1.000\\n" > "$4"'
    folder = fake(keep)
    monkeypatch.setenv("KEPT", str(folder))
    left, right, identity = mmseqs.alignments(*pack(list(PROTEINS)))
    assert (left.tolist(), right.tolist(), identity.tolist()) == ([0, 2], [2, 2], [0.412, 1])
    assert (folder / "in.fasta").read_text() == ">0\nACDEFGHIKLACDE\n>2\nMNPQRSTVWYUXMNP\n", "the others are too short"
    assert "OMP_" not in (folder / "env").read_text(), "with it the program refuses to start"
    assert families(*pack(list(PROTEINS)), engine="mmseqs2").tolist() == [0, 1, 0, 2]


def test_without_residues_enough_the_program_is_not_asked(fake: Callable[[str], Path]) -> None:
    fake("exit 1")
    left, right = mmseqs.similar_pairs(*pack(["", "ACDEFGHIKL"]))
    assert len(left) == len(right) == 0
