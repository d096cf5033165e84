"""Synthetic genomes: consistent as a genome, and with the signal and the noise that they say they have."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.Seq import Seq
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from raystudy.data.encode import DNA_SYMBOLS, FEATURES, composition, tokenize_dna
from raystudy.data.genes import Genes
from raystudy.data.homology import distinct_kmers
from raystudy.data.sources import prepare
from raystudy.data.sources.synthetic import MOTIF_EFFECTS, PROMOTER_BP
from raystudy.errors import SpecError


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    return prepare("synthetic", tmp_path_factory.mktemp("synthetic") / "data")


def out_of_fold_r2(inputs: NDArray[Any], labels: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
    return float(r2_score(labels, cross_val_predict(ridge, inputs, labels, groups=groups, cv=GroupKFold(5))))


def test_the_same_seed_gives_the_same_data(tmp_path: Path, synthetic_dir: Path) -> None:
    again = prepare("synthetic", tmp_path / "again", num_genes=120, num_chromosomes=4)
    other = prepare("synthetic", tmp_path / "other", num_genes=120, num_chromosomes=4, seed=1)
    assert again.hash == Genes.open(synthetic_dir).hash
    assert other.hash != again.hash


def test_sizes_are_as_asked_for(tmp_path: Path) -> None:
    genes = prepare("synthetic", tmp_path / "data", num_genes=7, num_chromosomes=3, window_bp=(50, 20))
    assert genes.num_genes == 7
    assert len(set(genes.chroms.tolist())) == 3
    assert (genes.anchor, genes.window_length) == (50, 70)
    assert genes.targets == ("mrna", "protein")


def test_every_cds_begins_with_atg_and_translates_to_its_protein(genes: Genes) -> None:
    for cds, protein in zip(genes.texts("cds"), genes.texts("protein"), strict=True):
        assert 40 <= len(protein) <= 200
        assert cds.startswith("ATG")
        assert str(Seq(cds).translate()) == protein + "*"


def test_every_window_reads_the_start_codon_at_the_anchor(genes: Genes) -> None:
    assert (genes.windows((0, 3)) == tokenize_dna("ATG")).all()
    unspliced = genes.features[:, FEATURES.index("junction_density")] == 0
    for window, cds in zip(genes.windows((0, 120))[unspliced], np.array(genes.texts("cds"))[unspliced], strict=True):
        assert window.tolist() == tokenize_dna(cds[:120]).tolist()


def test_coordinates_span_the_cds_and_its_introns(genes: Genes) -> None:
    cds_bp = np.array([len(cds) for cds in genes.texts("cds")])
    introns_bp = 10 ** genes.features[:, FEATURES.index("intron_length")].astype(float) - 0.1
    np.testing.assert_allclose(genes.ends - genes.starts + 1, cds_bp + introns_bp, rtol=1e-4)
    assert 0 < np.count_nonzero(introns_bp > 1) < genes.num_genes
    for chrom in set(genes.chroms.tolist()):
        here = genes.chroms == chrom
        assert (genes.starts[here][1:] > genes.ends[here][:-1]).all()


def test_both_strands_and_no_missing_feature(genes: Genes) -> None:
    assert set(genes.strands.tolist()) == {"+", "-"}
    assert np.isfinite(genes.features).all()


def test_some_windows_overlap_their_neighbours_and_some_do_not(genes: Genes) -> None:
    anchors = np.where(genes.strands == "+", genes.starts, genes.ends)
    first = np.where(genes.strands == "+", anchors - 600, anchors - 299)
    same_chrom = genes.chroms[1:] == genes.chroms[:-1]
    overlaps = (np.abs(np.diff(first)) < 900)[same_chrom]
    assert 0.1 < overlaps.mean() < 0.9


def test_families_are_planted_across_chromosomes(genes: Genes) -> None:
    members = defaultdict(list)
    for index, family in enumerate(genes.family_ids):
        members[family].append(index)
    families = [group for group in members.values() if len(group) > 1]
    assert len(families) > 20
    assert max(map(len, families)) <= 4
    assert any(len(set(genes.chroms[group])) > 1 for group in families)
    group = np.array(families[0])
    similarity = distinct_kmers(genes.protein_tokens, genes.protein_offsets).shared_fraction(group[:1], group[1:])
    assert similarity[0] >= 0.3


def test_the_noise_ceiling_is_what_the_true_inputs_reach(genes: Genes) -> None:
    promoters = ["".join(DNA_SYMBOLS[token] for token in window) for window in genes.windows((PROMOTER_BP, 0))]
    motifs = np.array([[promoter.count(motif) for motif in MOTIF_EFFECTS] for promoter in promoters])
    amino_acids = composition(genes.protein_tokens, genes.protein_offsets)
    truth = np.hstack([motifs, genes.features[:, [FEATURES.index("cds_gc")]], amino_acids])
    for target in genes.targets:
        labels = genes.target(target)
        known = np.isfinite(labels)
        reached = out_of_fold_r2(truth[known], labels[known], genes.family_ids[known])
        ceiling = genes.notes["noise_ceiling_r2"][target]
        assert 0.7 < ceiling < 0.9
        assert ceiling - 0.08 < reached < ceiling + 0.02


def test_about_half_of_the_protein_signal_is_in_the_amino_acids(genes: Genes) -> None:
    amino_acids = composition(genes.protein_tokens, genes.protein_offsets)
    labels = genes.target("protein")
    reached = out_of_fold_r2(amino_acids, labels, genes.family_ids)
    assert 0.3 < reached < 0.65
    shuffled = np.random.default_rng(0).permutation(labels)
    assert out_of_fold_r2(amino_acids, shuffled, genes.family_ids) < 0.1


def test_some_genes_have_no_mrna_level_but_all_have_a_protein_level(genes: Genes) -> None:
    assert 0 < np.isnan(genes.target("mrna")).sum() < 0.15 * genes.num_genes
    assert np.isfinite(genes.target("protein")).all()


@pytest.mark.parametrize(
    "sizes", [{"num_genes": 3}, {"num_chromosomes": 0}, {"window_bp": (0, 0)}, {"window_bp": (-5, 10)}]
)
def test_impossible_sizes_are_refused_before_anything_is_written(tmp_path: Path, sizes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="must hold, but got num_chromosomes="):
        prepare("synthetic", tmp_path / "data", **sizes)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_source_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError,
        match=r"no data source 'yeats'; known are ecoli, genome, synthetic, xpresso, yeast\. Did you mean 'yeast'",
    ):
        prepare("yeats", tmp_path / "data")


def test_an_unknown_option_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no option 'genes'; it has seed, num_genes"):
        prepare("synthetic", tmp_path / "data", genes=5)
