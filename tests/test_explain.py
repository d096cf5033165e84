"""`raystudy explain`: what every substitution does, against mutants made by hand and effects planted by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from typer.testing import CliRunner

from raystudy import cli, explain
from raystudy.data.batches import FeatureScale, Inputs, LabelScale
from raystudy.data.encode import DNA_SYMBOLS, PROTEIN_SYMBOLS
from raystudy.data.genes import FEATURES, Genes
from raystudy.data.sequences import Sequences
from raystudy.data.sources import prepare
from raystudy.errors import DataError, SpecError
from raystudy.models.build import build
from raystudy.models.network import ExpressionNetwork
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.training import checkpoint
from raystudy.training.trained import TrainedModel

MODEL: dict[str, Any] = {
    "window_bp": (24, 16), "max_protein": 16, "latent_dim": 8, "num_latents": 4, "queries_dim": 8, "token_dim": 8,
    "pool_size": 4,
}  # fmt: skip
UP, DOWN = MODEL["window_bp"]
TARGETS = ("protein", "mrna")
DNA = "".join("ACGT"[number * number % 7 % 4] for number in range(60))
ANCHOR = 30
PROTEIN = "MKVLAXUWQHDDDDDDDDDD"


def model_of(network: ExpressionNetwork | None = None, **changed: Any) -> TrainedModel:
    torch.manual_seed(0)
    spec = ModelSpec(**{**MODEL, **changed})
    labels = LabelScale(np.array([5.0, -1.0]), np.array([2.0, 0.5]))
    features = FeatureScale(np.zeros(8), np.ones(8))
    network = network or build(spec, len(TARGETS))
    return TrainedModel(network.eval(), spec, TrainingSpec(), TARGETS, labels, features, {}, "f" * 64)


def table(dna: str = DNA, protein: str = PROTEIN) -> pa.Table:
    columns = {"gene_id": ["G0"], "window": [dna], "protein": [protein], **{name: [0.5] for name in FEATURES}}
    return pa.table(columns)


def gene(**sequences: str) -> Sequences:
    return Sequences.of_table(table(**sequences), anchor=ANCHOR)


def predicted(model: TrainedModel, **sequences: str) -> np.ndarray:
    return model.predict(gene(**sequences), precision="fp32").to_numpy()[0]


def replaced(text: str, place: int, symbol: str) -> str:
    return text[:place] + symbol + text[place + 1 :]


@pytest.mark.parametrize("network", [{}, {"perceiver_input": "dna", "encoder": "kmer"}, {"family": "dna"}], ids=str)
def test_each_change_is_that_of_the_mutated_gene_predicted_alone(network: dict[str, Any]) -> None:
    model = model_of(**network)
    original = predicted(model)

    found = explain.mutate(model, gene(), "dna")

    assert found.positions.tolist() == list(range(-UP, DOWN))
    assert found.reference == DNA[ANCHOR - UP : ANCHOR + DOWN]
    np.testing.assert_allclose(found.predicted, original)
    assert np.nanstd(found.changes) > 1e-4
    for row, position in list(enumerate(found.positions.tolist()))[::9]:
        for column, symbol in enumerate(found.alternatives):
            if symbol == found.reference[row]:
                assert np.isnan(found.changes[row, column]).all()
                continue
            mutant = predicted(model, dna=replaced(DNA, ANCHOR + position, symbol))
            np.testing.assert_allclose(found.changes[row, column], mutant - original, atol=3e-6)


def test_residues_are_mutated_as_far_as_the_model_reads_them() -> None:
    model = model_of()
    original = predicted(model)

    found = explain.mutate(model, gene(), "protein")

    assert found.positions.tolist() == list(range(1, 17))
    assert found.reference == PROTEIN[:16]
    assert sorted(found.alternatives) == sorted(PROTEIN_SYMBOLS[1:21])
    known = np.isfinite(found.changes[:, :, 0]).sum(axis=1)
    assert known.tolist() == [20 if residue in "XU" else 19 for residue in PROTEIN[:16]]
    for row, residue in ((0, "W"), (5, "A"), (15, "K")):
        mutant = predicted(model, protein=replaced(PROTEIN, row, residue))
        np.testing.assert_allclose(found.changes[row, found.alternatives.index(residue)], mutant - original, atol=3e-6)


class MotifCounter(ExpressionNetwork):
    """One target per strand: does TATA, or its reverse complement, stand in the window? The first weighs 3, and a G
    from the anchor on adds its distance."""

    num_targets = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([3.0, 1.0]))

    def forward(self, inputs: Inputs) -> Tensor:
        windows = ["".join(DNA_SYMBOLS[token] for token in row) for row in inputs.sequence_BL.tolist()]
        motif = [
            [float("TATAAG" in text), sum(at for at, base in enumerate(text[UP:]) if base == "G")] for text in windows
        ]
        return torch.tensor(motif) * self.weight


def test_a_planted_motif_and_a_planted_position_are_found_where_they_are_and_in_the_labels_units() -> None:
    dna = replaced("A" * 60, 45, "C")
    start = ANCHOR - 10
    dna = dna[:start] + "TATAAG" + dna[start + 6 :]

    found = explain.mutate(model_of(MotifCounter()), gene(dna=dna), "dna")

    np.testing.assert_allclose(found.predicted, [3 * 2 + 5, -1])
    lost = np.isclose(np.nanmax(found.changes[:, :, 0], axis=1), -3 * 2)
    assert found.positions[lost].tolist() == list(range(-10, -4)), "the motif, upstream in the gene's own direction"
    np.testing.assert_allclose(np.nan_to_num(found.changes[~lost, :, 0]), 0)
    gained = found.changes[:, found.alternatives.index("G"), 1]
    np.testing.assert_allclose(gained[found.positions >= 0], 0.5 * np.arange(DOWN))
    np.testing.assert_allclose(np.nan_to_num(gained[found.positions < 0]), 0)


def test_a_region_is_the_same_part_of_the_whole_however_it_is_computed() -> None:
    model = model_of()
    whole = explain.mutate(model, gene(), "dna")
    told: list[tuple[int, int]] = []

    part = explain.mutate(model, gene(), "dna", (-5, 3), batch_size=7, on_mutants=lambda *done: told.append(done))

    assert part.positions.tolist() == list(range(-5, 3))
    np.testing.assert_allclose(part.changes, whole.changes[UP - 5 : UP + 3], atol=3e-6)
    assert told[-1] == (24, 24)


def test_changes_of_a_model_trained_in_bf16_are_not_rounded_to_bf16() -> None:
    model = model_of()
    half = replace(model, training=TrainingSpec(precision="bf16"), metrics={"precision": "bf16"})

    exact, found = (explain.mutate(one, gene(), "dna", (-3, 3)).changes for one in (model, half))

    np.testing.assert_array_equal(found, exact)


def test_an_unknown_base_becomes_each_of_the_four() -> None:
    found = explain.mutate(model_of(), gene(dna=replaced(DNA, ANCHOR, "n")), "dna", (0, 1))

    assert found.reference == "N"
    assert np.isfinite(found.changes).all()


@pytest.mark.parametrize(
    ("mutated", "region", "message"),
    [
        ("dna", (-25, 0), r"reads \[-24, 16\), .* but \[-25, 0\)"),
        ("dna", (3, 3), r"\[3, 3\)"),
        ("dna", (0, 17), r"\[0, 17\)"),
        ("protein", (0, 5), r"reads \[1, 17\), .* but \[0, 5\)"),
    ],
)
def test_a_region_outside_of_what_is_read_is_refused(mutated: Any, region: tuple[int, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        explain.mutate(model_of(), gene(), mutated, region)


def test_what_a_model_does_not_read_cannot_be_mutated() -> None:
    with pytest.raises(SpecError, match="reads dna, half_life, so there is no protein"):
        explain.mutate(model_of(family="dna"), gene(), "protein")


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Genes:
    return prepare("synthetic", tmp_path_factory.mktemp("data") / "genes", num_genes=30, num_chromosomes=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the model."""
    model, path = model_of(), tmp_path_factory.mktemp("model") / checkpoint.BEST
    state = {
        "config": {**model.model.model_dump(), **model.training.model_dump()},
        "targets": TARGETS,
        "label_scale": {name: values.tolist() for name, values in vars(model.label_scale).items()},
        "feature_scale": {name: values.tolist() for name, values in vars(model.feature_scale).items()},
        "metrics": {},
    }
    checkpoint.save(path, model.network.state_dict(), state)
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["explain", *map(str, arguments)])


def test_the_command_writes_a_table_and_pictures(genes: Genes, saved: Path, tmp_path: Path) -> None:
    identity = genes.gene_ids[7]

    result = run(saved, "--gene", identity, "--data", genes.folder, "--region", -8, 4, "--out", tmp_path, "--json")

    assert result.exit_code == 0, result.output + str(result.exception)
    answer = json.loads(result.stdout)
    assert (answer["gene"], answer["input"], answer["num_positions"]) == (identity, "dna", 12)
    with Path(answer["table"]).open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0]) == ["position", "reference", "alternative", "protein_change", "mrna_change"]
    assert [int(row["position"]) for row in rows] == [position for position in range(-8, 4) for _ in range(3)]
    window = genes.windows((8, 4))[7]
    assert [row["reference"] for row in rows[::3]] == [DNA_SYMBOLS[token] for token in window]
    model = TrainedModel.load(saved)
    expected = explain.mutate(model, explain.find_gene(genes, identity, model), "dna", (-8, 4))
    assert answer["predicted"] == pytest.approx(dict(zip(TARGETS, expected.predicted, strict=True)))
    for row in rows:
        change = expected.changes[int(row["position"]) + 8, expected.alternatives.index(row["alternative"])]
        assert [float(row[f"{target}_change"]) for target in TARGETS] == pytest.approx(
            change.tolist(), rel=1e-4, abs=1e-9
        )
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{identity}-dna_-8_4.{kind}" for kind in ("tsv", "svg", "png")
    }
    svg, png = (Path(path).read_bytes() for path in answer["pictures"])
    assert b"<svg" in svg
    assert identity.encode() in svg
    assert png.startswith(b"\x89PNG")


def test_a_protein_is_mutated_when_asked(genes: Genes, saved: Path, tmp_path: Path) -> None:
    result = run(saved, "--gene", genes.gene_ids[0], "--table", genes.folder / "genes.parquet", "--input", "protein",
                 "--region", 1, 4, "--out", tmp_path)  # fmt: skip

    assert result.exit_code == 0, result.output + str(result.exception)
    assert (tmp_path / f"{genes.gene_ids[0]}-protein_1_4.svg").exists()
    assert len((tmp_path / f"{genes.gene_ids[0]}-protein_1_4.tsv").read_text().splitlines()) == 1 + 3 * 19


def test_an_unknown_gene_is_refused_with_the_nearest(genes: Genes, saved: Path, tmp_path: Path) -> None:
    result = run(saved, "--gene", "SYN00007.1", "--data", genes.folder, "--out", tmp_path)

    assert isinstance(result.exception, DataError)
    assert "no gene 'SYN00007.1' among the 30" in str(result.exception)
    assert "nearest id is 'SYN00007'" in str(result.exception)


def test_a_genes_id_never_leads_out_of_the_folder(saved: Path, tmp_path: Path) -> None:
    columns = {
        "gene_id": ["../../etc/x y"],
        "window": [DNA[:40]],
        "protein": [PROTEIN],
        **{name: [0.5] for name in FEATURES},
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")

    result = run(
        saved, "--gene", "../../etc/x y", "--table", tmp_path / "t.parquet", "--region", 0, 2, "--out", tmp_path / "o"
    )

    assert result.exit_code == 0, result.output + str(result.exception)
    assert {path.parent for path in tmp_path.rglob("*-dna_0_2.*")} == {tmp_path / "o"}


def test_no_two_genes_or_regions_are_written_to_the_same_files() -> None:
    genes, regions = ("A/B", "A_B", "A?B", "..A", "A", "x" * 300), (None, (-5, 3), (-53, 3), (5, 3))
    asked = list(product(genes, ("dna", "protein"), regions))
    stems = {explain.file_stem(*one) for one in asked}

    assert len(stems) == len(asked)
    assert max(map(len, stems)) < 150
    assert explain.file_stem("YAL001C", "dna", None) == "YAL001C-dna"


def test_pictures_that_fail_leave_no_half_of_the_answer(
    genes: Genes, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "draw", lambda *_: 1 / 0)

    result = run(saved, "--gene", genes.gene_ids[0], "--data", genes.folder, "--region", 0, 2, "--out", tmp_path)

    assert isinstance(result.exception, ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []


def test_no_change_is_lost_between_the_pixels_of_a_long_window() -> None:
    changes = np.full((10_001, 4, 1), 1e-3)
    changes[np.arange(10_001), np.arange(10_001) % 4] = np.nan
    spikes = np.arange(7, 10_001, 997)
    changes[spikes, (spikes + 1) % 4] = -1.0
    effects = explain.Effects(
        "G", "dna", ("level",), np.zeros(1), np.arange(-9_001, 1_000), "N" * 10_001, "ATCG", changes
    )
    track, heatmap = Figure().subplots(2, 1)

    explain._draw_target(effects, 0, "level", track, heatmap)

    [image] = heatmap.get_images()
    shown = image.get_array()
    assert shown.shape[1] <= explain._MOST_COLUMNS
    assert (shown == -1).sum() == len(spikes)
    left, right, *_ = image.get_extent()
    column = np.flatnonzero((shown == -1).any(axis=0))
    first = left + (right - left) * column / shown.shape[1]
    width = (right - left) / shown.shape[1]
    found = effects.positions[spikes]
    assert ((first < found) & (found < first + width)).all(), "each where it is"
    assert heatmap.get_xlim() == (-9_001.5, 999.5)
