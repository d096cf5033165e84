"""Which widths follow from an estimate, and that an estimate is made once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from raystudy.data.encode import tokenize_dna, tokenize_protein
from raystudy.data.genes import Genes
from raystudy.dimension import seeding
from raystudy.dimension.estimators import DimensionEstimate, estimate
from raystudy.dimension.representations import REPRESENTATIONS, represent
from raystudy.dimension.seeding import dimension_of, seed_widths
from raystudy.errors import SpecError


def found(consensus: float | None) -> DimensionEstimate:
    return DimensionEstimate(
        representation="kmer3",
        estimates={} if consensus is None else {"MLE": consensus},
        consensus=consensus,
        mean=consensus,
        interval=None if consensus is None else (consensus - 1, consensus + 1),
        refused={"MLE": "too few points"} if consensus is None else {},
        seconds={},
        num_points=100,
        num_duplicates=0,
    )


def fake_genes(num_genes: int = 80, content: str = "aaaa", seed: int = 0) -> Genes:
    """The part of a prepared folder that this room reads, in memory."""
    random = np.random.default_rng(seed)
    windows = random.integers(1, 5, (num_genes, 300)).astype(np.uint8)
    lengths = random.integers(50, 90, num_genes)
    return cast(
        Genes,
        SimpleNamespace(
            num_genes=num_genes,
            hash=content,
            windows=lambda window_bp: windows[:, 200 - window_bp[0] : 200 + window_bp[1]],
            protein_tokens=random.integers(1, 21, lengths.sum()).astype(np.uint8),
            protein_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        ),
    )


@pytest.mark.parametrize(
    ("consensus", "low", "high", "widths", "clamped"),
    [
        (22.2, 8, 128, (16, 32), False),
        (23.9, 8, 128, (32, 16), False),  # nearer to 32 on the log scale that widths live on
        (40.0, 8, 128, (32, 64, 16), False),
        (64.0, 8, 128, (64, 16), False),
        (5.0, 4, 128, (4, 8, 16), False),
        (5.0, 8, 128, (8, 16), True),
        (318.0, 8, 128, (128, 16), True),
        (22.2, 32, 128, (32,), True),
        (22.2, 4, 8, (8,), True),
        (22.2, 10, 100, (16, 32), False),
        (200.0, 10, 100, (64, 16), True),
        (None, 8, 128, (16,), False),
        (None, 32, 128, (32,), True),
        (None, 4, 8, (8,), True),
    ],
)
def test_widths_are_the_neighbouring_powers_of_two_inside_the_space_and_sixteen(
    consensus: float | None, low: int, high: int, widths: tuple[int, ...], clamped: bool
) -> None:
    seeded = seed_widths(found(consensus), low, high)
    assert seeded.widths == widths
    assert seeded.clamped is clamped
    assert ("clamped" in seeded.provenance["note"]) is clamped


def test_the_provenance_says_where_the_widths_come_from() -> None:
    seeded = seed_widths(found(22.2), 8, 128)
    assert seeded.provenance["representation"] == "kmer3"
    assert seeded.provenance["estimates"] == {"MLE": 22.2}
    assert seeded.provenance["consensus"] == 22.2
    assert seeded.provenance["interval"] == [21.2, 23.2]
    json.dumps(seeded.provenance, allow_nan=False)


def test_with_everything_refused_the_provenance_says_why() -> None:
    assert "too few points" in seed_widths(found(None), 8, 128).provenance["note"]


@pytest.mark.parametrize(("low", "high"), [(128, 8), (0, 8), (9, 15)])
def test_a_space_without_a_power_of_two_is_a_spec_error(low: int, high: int) -> None:
    with pytest.raises(SpecError, match=rf"low={low}, high={high}"):
        seed_widths(found(22.2), low, high)


def test_an_unknown_representation_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match=r"'kmr3'.* Did you mean 'kmer3'"):
        represent(fake_genes(), (100, 50), "kmr3")


def test_every_representation_is_a_float32_row_per_gene() -> None:
    shapes = {name: represent(fake_genes(), (100, 50), name).shape for name in REPRESENTATIONS}
    assert shapes == {"kmer3": (80, 64), "kmer4": (80, 256), "onehot": (80, 750), "composition": (80, 22)}
    assert all(represent(fake_genes(), (100, 50), name).dtype == np.float32 for name in REPRESENTATIONS)


def test_one_hot_distances_count_mismatches_with_n_as_a_symbol_of_its_own() -> None:
    genes = fake_genes()
    windows = np.stack([tokenize_dna("ACGTACGT"), tokenize_dna("ACGTTTTT"), tokenize_dna("NNNNACGT")])
    genes.windows = lambda window_bp: windows  # type: ignore[method-assign]
    points = represent(genes, (4, 4), "onehot")
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    np.testing.assert_array_equal(squares, 2 * np.array([[0, 3, 4], [3, 0, 7], [4, 7, 0]]))


def test_composition_is_of_the_protein() -> None:
    genes = fake_genes(num_genes=1)
    genes.protein_tokens, genes.protein_offsets = tokenize_protein("MMAC"), np.array([0, 4])
    assert sorted(represent(genes, (100, 50), "composition")[0])[-3:] == [0.25, 0.25, 0.5]


def test_the_json_has_the_chosen_representation_and_the_others_beside_it() -> None:
    document = dimension_of(fake_genes(), (200, 100), "kmer3", ("kmer4", "composition", "kmer3"))
    assert document["representation"] == "kmer3"
    assert list(document["others"]) == ["kmer4", "composition"]
    assert {name: other["representation"] for name, other in document["others"].items()} == {
        "kmer4": "kmer4",
        "composition": "composition",
    }
    json.dumps(document, allow_nan=False)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The representations that were estimated rather than read."""
    made: list[str] = []

    def counting(points, representation: str, seed: int) -> DimensionEstimate:
        made.append(representation)
        return estimate(points, representation, seed, bootstrap=0)

    monkeypatch.setattr(seeding, "estimate", counting)
    return made


def test_a_second_call_reads_the_cache(tmp_path: Path, counted: list[str]) -> None:
    first = dimension_of(fake_genes(), (200, 100), cache_folder=tmp_path / "new")
    assert counted == ["kmer3", "kmer4", "composition"]
    assert dimension_of(fake_genes(), (200, 100), cache_folder=tmp_path / "new") == first
    swapped = dimension_of(fake_genes(), (200, 100), "kmer4", ("kmer3",), cache_folder=tmp_path / "new")
    assert swapped["others"]["kmer3"]["estimates"] == first["estimates"]
    assert len(counted) == 3


@pytest.mark.parametrize("changed", ["data", "window", "seed", "version", "torn"])
def test_anything_that_changes_the_answer_is_estimated_again(
    changed: str, tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path)
    genes = fake_genes(content="bbbb" if changed == "data" else "aaaa")
    if changed == "version":
        monkeypatch.setattr("raystudy.__version__", "0.0.0")
    if changed == "torn":
        (path,) = tmp_path.iterdir()
        path.write_text(path.read_text()[:40])
    window_bp = (200, 50) if changed == "window" else (200, 100)
    dimension_of(genes, window_bp, others=(), cache_folder=tmp_path, seed=int(changed == "seed"))
    assert counted == ["kmer3", "kmer3"]
