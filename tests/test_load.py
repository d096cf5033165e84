"""`raystudy.load`: what was trained comes back and predicts the same, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import raystudy
from raystudy.data.batches import FeatureScale, LabelScale, StudyData
from raystudy.data.genes import Genes, GeneTable, Target, write_genes
from raystudy.data.sources import prepare, synthetic
from raystudy.data.splits import Split
from raystudy.errors import DataError
from raystudy.models.build import build
from raystudy.study.model import ModelSpec, TrainingSpec
from raystudy.training import checkpoint, loop
from raystudy.training.loop import Job, predict, train
from raystudy.training.session import LocalSession
from raystudy.training.trained import TrainedModel

SMALL: dict[str, Any] = {
    "window_bp": (100, 50), "max_protein": 60, "latent_dim": 8, "num_latents": 4, "queries_dim": 8, "token_dim": 8,
    "pool_size": 6,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {
    "dna": {**SMALL, "family": "dna"},
    "dna, 3-mers, no half-life": {**SMALL, "family": "dna", "encoder": "kmer", "half_life": "none"},
    "protein": {**SMALL, "family": "protein"},
    "protein as codons": {**SMALL, "family": "protein", "tokens": "codon", "latent_summary": False},
    "protein asked by dna": {**SMALL, "encoder": "embedding", "half_life": "mlp"},
    "dna asked by protein": {**SMALL, "perceiver_input": "dna", "depth": 2},
    "dna 3-mers asked by codons": {**SMALL, "perceiver_input": "dna", "encoder": "kmer", "tokens": "codon"},
    "xpresso": {"family": "xpresso", "window_bp": (200, 100)},
}
TARGETS: list[tuple[str, ...]] = [("protein",), ("mrna", "protein")]


@pytest.fixture(scope="module")
def genes(synthetic_dir: Path) -> Genes:
    return Genes.open(synthetic_dir)


@pytest.fixture(scope="module")
def split(genes: Genes) -> Split:
    train, valid, test = np.split(np.random.default_rng(0).permutation(genes.num_genes), [70, 95])
    return Split("random", genes.hash, np.sort(train), np.sort(valid), np.sort(test), dropped={}, audit={})


def short_training(name: str) -> Job:
    rate = 1e-3 if name == "xpresso" else 1e-2  # its last two units easily die
    training = TrainingSpec(epochs=3, batch_size=16, learning_rate=rate, precision="fp32", attention="sdpa")
    return Job(ModelSpec(**NETWORKS[name]), training, seed=5)


@pytest.fixture(scope="module")
def trained(genes: Genes, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training."""
    job, folder = short_training("protein asked by dna"), tmp_path_factory.mktemp("trained")
    train(job, StudyData.of(genes, split, job.model, ("protein",)), LocalSession(folder))
    return folder


@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_model_predicts_what_it_did_in_training_in_the_labels_own_units(
    name: str, targets: tuple[str, ...], genes: Genes, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def spy(*arguments: Any) -> Any:
        seen.append(predict(*arguments))
        return seen[-1]

    monkeypatch.setattr(loop, "predict", spy)
    job = short_training(name)
    data = StudyData.of(genes, split, job.model, targets)
    train(job, data, LocalSession(tmp_path))
    assert len(seen) == 3

    model = raystudy.load(tmp_path)

    standardised = seen[model.metrics["epoch"] - 1]
    again = predict(model.network, data.inputs, split.valid, LocalSession(tmp_path), bf16=False)
    assert np.array_equal(again, standardised), "the very same numbers"
    measured = np.stack([genes.target(target)[split.train] for target in targets], axis=1)
    expected = standardised * np.nanstd(measured, axis=0) + np.nanmean(measured, axis=0)
    levels = model.predict(genes)
    assert levels.index.tolist() == genes.gene_ids.tolist()
    assert tuple(levels.columns) == targets
    predicted = levels.to_numpy()
    assert predicted.dtype == np.float64
    assert predicted.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(predicted[split.valid], expected, atol=1e-5 * expected.std(), rtol=0)
    assert (model.model, model.training, model.targets) == (job.model, job.training, targets)
    assert not model.network.training


def test_a_folder_and_its_best_checkpoint_give_the_same_model(trained: Path, genes: Genes) -> None:
    from_file, from_text = raystudy.load(trained / checkpoint.BEST), raystudy.load(str(trained))

    assert np.array_equal(from_file.predict(genes), from_text.predict(genes))
    assert from_file.metrics == from_text.metrics
    assert from_file.metrics["valid_r2"] == max(
        epoch["valid_r2"] for epoch in checkpoint.load(trained / checkpoint.LAST)[1]["history"]
    )


@pytest.fixture(scope="module")
def first_genes(tmp_path_factory: pytest.TempPathFactory, genes: Genes) -> Genes:
    """The first 15 genes in a folder of their own."""
    whole = synthetic.build(num_genes=120, num_chromosomes=4)
    few = {
        one.name: {name: Target(label.values[:15], label.unit) for name, label in whole.targets.items()}
        if one.name == "targets"
        else getattr(whole, one.name)[:15]
        for one in fields(GeneTable)
        if one.name not in ("source", "source_digests", "anchor", "notes")
    }
    subset = Genes.open(write_genes(replace(whole, **few), tmp_path_factory.mktemp("few") / "few"))
    assert genes.gene_ids[:15].tolist() == subset.gene_ids.tolist()
    return subset


def test_what_is_predicted_for_a_gene_does_not_depend_on_the_genes_beside_it(
    trained: Path, genes: Genes, first_genes: Genes
) -> None:
    model = raystudy.load(trained)
    together = model.predict(genes).to_numpy()[:15]

    np.testing.assert_allclose(model.predict(first_genes), together, atol=1e-5 * together.std(), rtol=0)


def untrained(name: str, targets: tuple[str, ...], genes: Genes, split: Split) -> TrainedModel:
    job, inputs = short_training(name), FeatureScale.fit(genes.features, split.train)
    levels = np.stack([genes.target(target) for target in targets], axis=1)[split.train]
    network = build(job.model, len(targets)).eval()
    labels = LabelScale.fit(levels, targets)
    return TrainedModel(network, job.model, job.training, targets, labels, inputs, {}, "f" * 64)


@pytest.mark.parametrize("targets", TARGETS, ids="+".join)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_embedding_is_what_the_last_layer_makes_the_prediction_of(
    name: str, targets: tuple[str, ...], genes: Genes, split: Split
) -> None:
    model = untrained(name, targets, genes, split)
    before = model.predict(genes).to_numpy()
    found = model.embed(genes)

    last = [layer for layer in model.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    assert last.out_features == len(targets)
    assert found.values.shape == (genes.num_genes, last.in_features)
    assert found.values.dtype == np.float32
    assert found.names == tuple(str(column) for column in range(last.in_features))
    assert (found.num_missing, found.num_unknown) == (0, 0)
    with torch.no_grad():
        standardised = last(torch.from_numpy(found.values)).numpy()
    np.testing.assert_allclose(model.label_scale.to_unit(standardised), before, atol=1e-5 * before.std() + 1e-6)
    assert not last._forward_pre_hooks, "nothing is left behind in the network"
    assert np.array_equal(model.predict(genes), before)


def test_what_is_embedded_of_a_gene_does_not_depend_on_the_genes_beside_it(
    trained: Path, genes: Genes, first_genes: Genes, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = raystudy.load(trained)
    together = model.embed(genes).values
    assert together[:15].std(axis=0).max() > 1e-3, "genes are told apart"

    np.testing.assert_allclose(model.embed(first_genes).values, together[:15], atol=1e-5)
    monkeypatch.setattr(loop, "EVALUATION_BATCH", 7)
    np.testing.assert_allclose(model.embed(genes).values, together, atol=1e-5)


def test_an_embedding_is_known_by_the_checkpoint_it_came_from(
    trained: Path, genes: Genes, split: Split, tmp_path: Path
) -> None:
    digest = hashlib.sha256((trained / checkpoint.BEST).read_bytes()).hexdigest()
    assert raystudy.load(trained).sha256 == raystudy.load(trained / checkpoint.BEST).sha256 == digest
    assert raystudy.load(trained).embed(genes).sha256 == digest

    job = replace(short_training("protein asked by dna"), seed=6)
    train(job, StudyData.of(genes, split, job.model, ("protein",)), LocalSession(tmp_path))
    assert raystudy.load(tmp_path).sha256 != digest


def test_a_loaded_model_predicts_with_the_attention_it_was_trained_with_where_that_works(
    genes: Genes, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = short_training("protein asked by dna")
    job = replace(job, training=job.training.model_copy(update={"attention": "math", "epochs": 1}))
    train(job, StudyData.of(genes, split, job.model, ("protein",)), LocalSession(tmp_path))
    monkeypatch.setattr("raystudy.models.backends.BACKENDS", ("sdpa",))
    model = raystudy.load(tmp_path)
    model.predict(genes)

    layers = [layer for layer in model.network.modules() if hasattr(layer, "backend")]
    assert len(layers) == 3
    assert {layer.backend for layer in layers} == {"math"}, "or two predictions differ in the last bits by chance"


class Bomb:
    """Unpickling it runs code."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.proof,))


def as_pickle(path: Path, trained: Path, proof: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Bomb(proof)}))


def as_torch_save(path: Path, trained: Path, proof: Path) -> None:
    torch.save({"weights": torch.ones(3), "more": Bomb(proof)}, path)


def cut_short(path: Path, trained: Path, proof: Path) -> None:
    whole = (trained / checkpoint.BEST).read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def empty(path: Path, trained: Path, proof: Path) -> None:
    path.touch()


def last_checkpoint(path: Path, trained: Path, proof: Path) -> None:
    path.write_bytes((trained / checkpoint.LAST).read_bytes())


def of_someone_else(path: Path, trained: Path, proof: Path) -> None:
    save_file({"weight": torch.ones(3)}, path, metadata={"format": "pt"})


def a_pickle_in_the_header(path: Path, trained: Path, proof: Path) -> None:
    save_file({"weight": torch.ones(3)}, path, metadata={"state": pickle.dumps(Bomb(proof), 0).decode("latin-1")})


def changed(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> Callable[[Path, Path, Path], None]:
    def make(path: Path, trained: Path, proof: Path) -> None:
        tensors, state = checkpoint.load(trained / checkpoint.BEST)
        change(state, tensors)
        save_file(tensors, path, metadata={"state": json.dumps(state)})

    return make


REFUSED: dict[str, Callable[[Path, Path, Path], None]] = {
    "a pickle": as_pickle,
    "a file of torch.save": as_torch_save,
    "a file cut short": cut_short,
    "an empty file": empty,
    "the checkpoint to go on from": last_checkpoint,
    "safetensors of someone else": of_someone_else,
    "a pickle in the header": a_pickle_in_the_header,
    "no configuration": changed(lambda state, _: state.pop("config")),
    "no label scale": changed(lambda state, _: state.pop("label_scale")),
    "half a label scale": changed(lambda state, _: state["label_scale"].pop("std")),
    "a key of another version": changed(lambda state, _: state["config"].update(of_the_future=1)),
    "an impossible value": changed(lambda state, _: state["config"].update(latent_dim=-8)),
    "another network's tensors": changed(lambda state, _: state["config"].update(latent_dim=16)),
    "a network too large for any memory": changed(lambda state, _: state["config"].update(num_latents=10**13)),
    "a tensor too few": changed(lambda _, tensors: tensors.pop("output.bias")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_checkpoint_of_a_finished_epoch_is_refused_in_one_paragraph_and_never_run(
    what: str, trained: Path, tmp_path: Path
) -> None:
    path, proof = tmp_path / "model.safetensors", tmp_path / "proof"
    REFUSED[what](path, trained, proof)

    with pytest.raises(DataError, match=r"model\.safetensors: not ") as caught:
        raystudy.load(path)

    assert "\n" not in str(caught.value)
    assert not proof.exists()


def test_the_bomb_of_these_tests_would_go_off_if_it_were_unpickled(tmp_path: Path) -> None:
    as_pickle(tmp_path / "file", tmp_path, tmp_path / "proof")

    pickle.loads((tmp_path / "file").read_bytes())  # noqa: S301

    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("missing", ["nowhere", "empty-folder"])
def test_where_there_is_no_checkpoint_the_message_names_the_place(missing: str, tmp_path: Path) -> None:
    (tmp_path / "empty-folder").mkdir()

    with pytest.raises(DataError, match=missing) as caught:
        raystudy.load(tmp_path / missing)

    assert "\n" not in str(caught.value)


def test_genes_without_what_the_model_reads_are_refused(tmp_path: Path, trained: Path) -> None:
    narrow = prepare("synthetic", tmp_path / "narrow", num_genes=12, num_chromosomes=1, window_bp=(50, 20))

    with pytest.raises(DataError, match=r"\[100, 50\] bp"):
        raystudy.load(trained).predict(narrow)
    with pytest.raises(DataError, match=r"\[100, 50\] bp"):
        raystudy.load(trained).embed(narrow)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_model_trained_on_the_cpu_predicts_the_same_on_a_gpu(trained: Path, genes: Genes) -> None:
    here, there = (raystudy.load(trained, device).predict(genes).to_numpy() for device in ("cpu", "cuda"))

    np.testing.assert_allclose(there, here, atol=1e-4 * here.std(), rtol=0)


def run_python(code: str, *arguments: Path) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr


def test_importing_raystudy_alone_imports_neither_torch_nor_ray() -> None:
    run_python("import sys, raystudy; assert not {'torch', 'ray', 'mlflow', 'numpy'} & set(sys.modules)")


def test_without_ray_mlflow_or_optuna_installed_a_network_trains_loads_and_predicts(
    synthetic_dir: Path, tmp_path: Path
) -> None:
    code = """if True:
        import sys
        sys.modules["ray"] = sys.modules["mlflow"] = sys.modules["optuna"] = None
        from pathlib import Path
        import numpy as np
        import raystudy
        from raystudy.data.batches import FeatureScale, LabelScale, StudyData
        from raystudy.data.genes import Genes
        from raystudy.data.splits import make_split
        from raystudy.study.model import ModelSpec, TrainingSpec
        from raystudy.study.sections import SplitSpec
        from raystudy.training.loop import Job, train
        from raystudy.training.session import LocalSession

        data_folder, folder = map(Path, sys.argv[1:])
        genes = Genes.open(data_folder)
        model = ModelSpec(window_bp=(100, 50), max_protein=60, num_latents=4, latent_dim=8, queries_dim=8, pool_size=6)
        split = make_split(genes, SplitSpec(by="random"), (100, 50), np.ones(genes.num_genes, bool))
        job = Job(model, TrainingSpec(epochs=1, batch_size=16), seed=0)
        reported = []
        train(job, StudyData.of(genes, split, model, ["protein"]), LocalSession(folder, reported.append))
        predicted = raystudy.load(folder).predict(genes).to_numpy()
        assert len(reported) == 1 and predicted.shape == (genes.num_genes, 1) and np.isfinite(predicted).all()
    """
    run_python(code, synthetic_dir, tmp_path)


def test_a_checkpoint_is_safetensors_that_any_reader_opens(trained: Path) -> None:
    tensors = load_file(trained / checkpoint.BEST)

    assert tensors.keys() == raystudy.load(trained).network.state_dict().keys()
