"""Reading exports: what comes back, what is refused, and the program that other software reads."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raystudy
from raystudy.data.streams import chunks_of
from raystudy.errors import DataError
from raystudy.export import export_model
from raystudy.models.build import build
from raystudy.training import program
from raystudy.training.exported import Ensemble, Interval, load_export, read_config
from raystudy.training.program import NoProgram, describe_arguments, write_program
from raystudy.training.trained import TrainedModel
from tests.training.conftest import READERS, Tiny, make_job, run


def train_one(tiny: Tiny, folder: Path, model: dict[str, Any] | None = None, seed: int = 7) -> TrainedModel:
    job = make_job(seed, model, epochs=1)
    run(job, tiny.read_by(job), folder)
    return TrainedModel.load(folder)


def untrained(tiny: Tiny, settings: dict[str, Any], seed: int) -> TrainedModel:
    job = make_job(seed, settings)
    torch.manual_seed(seed)
    data, network = tiny.read_by(job), build(job.model)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_()
        elif name == "dense.3.weight":
            tensor.abs_()  # so that Xpresso's two units before the last answer to every gene
    scales = (data.label_scale, data.feature_scale)
    return TrainedModel(network.eval(), job.model, job.training, ("protein",), *scales, {}, "f" * 64)


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train_one(tiny, folder)
    return folder


@pytest.fixture(scope="module")
def exported_once(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "one"
    export_model(trained, out)
    return out


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    out = tmp_path / "export"
    out.mkdir()
    for path in exported_once.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((folder / "config.json").read_text())
    change(document)
    (folder / "config.json").write_text(json.dumps(document))


def test_an_export_of_one_model_is_that_model(trained: Path, exported: Path, tiny: Tiny) -> None:
    model, again = raystudy.load(trained), raystudy.load(exported)

    assert isinstance(again, TrainedModel)
    assert (again.model, again.training, again.targets) == (model.model, model.training, model.targets)
    assert again.predict(tiny.genes).equals(model.predict(tiny.genes))


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a path that leaves the folder": (lambda it: it["members"][0].update(file="../member-0.safetensors"), "file"),
    "an absolute path": (lambda it: it["members"][0].update(file="/etc/passwd"), "file"),
    "a path into a folder": (lambda it: it["members"][0].update(file="a/member-0.safetensors"), "file"),
    "another digest": (lambda it: it["members"][0].update(sha256="0" * 64), "sha256"),
    "no members": (lambda it: it.update(members=[]), "members"),
    "another scale": (lambda it: it["members"][0]["label_scale"].update(mean=[0.0]), "label_scale"),
    "another network": (lambda it: it["members"][0]["config"].update(depth=3), "config"),
    "an unknown key": (lambda it: it["members"][0]["config"].update(wings=2), "config"),
    "another target": (lambda it: it["members"][0].update(targets=["mrna"]), "targets"),
    "a later version": (lambda it: it.update(version=2), "version 2.*reads version 1"),
    "another format": (lambda it: it.update(format="onnx"), "'onnx'"),
    "no units": (lambda it: it.pop("units"), "units"),
    "an interval of another target": (
        lambda it: it.update(
            interval={
                "coverage": 0.9,
                "half_width": {"mrna": 1.0},
                "num_residuals": {"mrna": 9},
                "method": "",
                "measured": None,
            }
        ),
        "interval",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_altered_description_is_refused(damage: str, exported: Path) -> None:
    change, told = DAMAGE[damage]
    edit(exported, change)

    with pytest.raises(DataError, match=told):
        load_export(exported)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "[" * 100_000, "\x80\x04"])
def test_a_description_that_is_none_is_refused(text: str, exported: Path) -> None:
    (exported / "config.json").write_text(text)

    with pytest.raises(DataError, match=r"config\.json"):
        raystudy.load(exported)


def test_a_changed_bit_of_the_weights_is_found(exported: Path) -> None:
    path = exported / "member-0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(DataError, match=r"member-0\.safetensors.*damaged or was altered"):
        load_export(exported)


def test_missing_weights_are_named(exported: Path) -> None:
    (exported / "member-0.safetensors").unlink()

    with pytest.raises(DataError, match=r"member-0\.safetensors.*not whole"):
        load_export(exported)


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def test_a_pickle_with_the_right_digest_is_not_opened(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Bomb())
    (exported / "member-0.safetensors").write_bytes(data)
    edit(exported, lambda it: it["members"][0].update(sha256=hashlib.sha256(data).hexdigest()))

    with pytest.raises(DataError, match="not a checkpoint"):
        load_export(exported)
    assert not (tmp_path / "exploded").exists()


def test_a_config_written_before_a_key_was_known_still_loads(exported: Path) -> None:
    edit(exported, lambda it: it["members"][0]["config"].pop("sync_batchnorm"))

    assert isinstance(load_export(exported), TrainedModel)


def test_a_target_without_a_half_width_has_an_interval_of_nothing(exported: Path, tiny: Tiny) -> None:
    interval = {"coverage": 0.9, "half_width": {}, "num_residuals": {}, "method": "", "measured": None}
    edit(exported, lambda it: it.update(interval=interval))

    predicted = load_export(exported).predict(tiny.genes)

    assert np.isfinite(predicted["protein"]).all()
    assert predicted[["protein_low", "protein_high"]].isna().to_numpy().all()


def test_an_ensemble_says_the_mean_and_its_interval(tiny: Tiny, tmp_path: Path) -> None:
    members = tuple(train_one(tiny, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    interval = Interval(coverage=0.9, half_width={"protein": 0.25}, num_residuals={}, method="", measured=None)
    genes = tiny.genes

    predicted = Ensemble(members, interval).predict(genes)

    mean = (members[0].predict(genes) + members[1].predict(genes)) / 2
    assert list(predicted) == ["protein", "protein_low", "protein_high"]
    assert predicted.index.tolist() == genes.gene_ids.tolist()
    np.testing.assert_allclose(predicted["protein"], mean["protein"], rtol=1e-12)
    np.testing.assert_allclose(predicted["protein_high"] - predicted["protein_low"], 0.5)
    once = Ensemble(members, interval).predict(chunks_of(genes, members[0].inputs, 50))
    np.testing.assert_allclose(once, predicted, atol=1e-5)
    chunks = list(Ensemble(members, None).predict_chunks(genes, chunk_genes=50))
    assert [len(chunk) for chunk in chunks] == [50, 50, 20]
    assert list(chunks[0]) == ["protein"]
    np.testing.assert_allclose(np.concatenate([chunk["protein"] for chunk in chunks]), mean["protein"], atol=1e-5)


FAST = ("protein asked by dna", "xpresso")
"""Those that are traced in every run, for each takes seconds: one with both branches, one without a Perceiver."""


@pytest.mark.parametrize(
    "reader", [pytest.param(one, marks=[] if one in FAST else [pytest.mark.slow]) for one in READERS]
)
def test_the_program_of_one_gene_computes_what_the_model_does(reader: str, tiny: Tiny, tmp_path: Path) -> None:
    network = READERS[reader] | ({"half_life_missing": "indicator"} if reader == "xpresso" else {})
    members = [untrained(tiny, network, seed) for seed in ((1, 2) if reader == "dna" else (1,))]
    path = tmp_path / "program.pt2"

    assert write_program(members, path) <= program.TOLERANCE

    computed = torch.export.load(path).module()
    job = make_job(model=READERS[reader])
    inputs, genes = tiny.read_by(job).inputs, tiny.genes
    expected = sum(member.predict(genes, precision="fp32")["protein"] for member in members) / len(members)
    assert expected.std() > 100 * 1e-5 * members[0].label_scale.std[0]
    for row in np.argsort(inputs.protein_lengths)[[0, 40, 80, 119]]:
        gene = inputs.batch(np.array([row]), torch.device("cpu"))
        features = torch.from_numpy(genes.features[[row]])
        level = computed(gene.sequence_BL, features, gene.tokens_T, gene.positions_T).detach()
        assert (level.shape, level.dtype) == ((1, 1), torch.float64)
        assert float(level[0, 0]) == pytest.approx(expected.iloc[row], abs=1e-5 * members[0].label_scale.std[0])
    assert list(describe_arguments(members[0])) == ["sequence", "half_life", "tokens", "positions"]


def test_the_program_holds_no_pickle_and_no_folder_of_this_machine(exported: Path) -> None:
    with zipfile.ZipFile(exported / "program.pt2") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    assert not [name for name, data in parts.items() if data and (data[:2] == b"PK" or name.endswith(".pt"))]
    weights = json.loads(parts["program/data/weights/model_weights_config.json"])["config"]
    assert weights
    assert not any(one["use_pickle"] for one in weights.values())
    assert not [name for name, data in parts.items() if str(Path(raystudy.__file__).parents[1]).encode() in data]


def test_a_program_that_computes_something_else_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = program._scales

    def doubled(member: TrainedModel) -> tuple[torch.Tensor, ...]:
        *others, std = whole(member)
        return (*others, 2 * std)

    monkeypatch.setattr(program, "_scales", doubled)

    with pytest.raises(NoProgram, match=r"differs by .* standard deviations; 1e-05 is allowed"):
        write_program([TrainedModel.load(trained)], tmp_path / "program.pt2")
    assert not (tmp_path / "program.pt2").exists()


def test_where_there_is_no_program_the_export_says_why(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no tracing today")

    monkeypatch.setattr(torch.export, "export", refuse)

    export_model(trained, tmp_path / "out")

    assert read_config(tmp_path / "out").program == {
        "file": None,
        "reason": "torch.export failed: RuntimeError: no tracing today",
    }
    assert (
        "There is no `program.pt2`: torch.export failed: RuntimeError: no"
        in (tmp_path / "out" / "README.md").read_text()
    )
    assert not (tmp_path / "out" / "program.pt2").exists()
