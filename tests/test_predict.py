"""`raystudy predict`: the model by what it is called, genes from tables and FASTA, levels in a file."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import raystudy
from raystudy import cli, predict
from raystudy.data.batches import StudyData
from raystudy.data.encode import DNA_SYMBOLS
from raystudy.data.genes import FEATURES, TABLE, Genes
from raystudy.data.sequences import Sequences
from raystudy.data.splits import PARTS, make_split
from raystudy.data.streams import chunks_of
from raystudy.errors import DataError, SpecError
from raystudy.study.sections import SplitSpec
from raystudy.tracking.predictions import read_predictions, write_predictions
from raystudy.tracking.records import Records
from raystudy.training import checkpoint
from raystudy.training.session import LocalSession
from raystudy.training.trained import TrainedModel
from tests.predict_cases import TARGETS, WINDOW, train_one


@pytest.fixture(scope="module")
def genes(synthetic_dir: Path) -> Genes:
    return Genes.open(synthetic_dir)


@pytest.fixture(scope="module")
def trained(genes: Genes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reads all three inputs."""
    return train_one(genes, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def of_dna(genes: Genes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_one(genes, tmp_path_factory.mktemp("of-dna"), family="dna", half_life="none")


@pytest.fixture(scope="module")
def levels(trained: Path, genes: Genes) -> pd.DataFrame:
    return raystudy.load(trained).predict(genes)


def close(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """To 1e-5 of the levels' spread, the same genes in the same order."""
    assert found.index.tolist() == expected.index.tolist()
    assert found.columns.tolist() == expected.columns.tolist()
    return bool((np.abs(found.to_numpy() - expected.to_numpy()) <= 1e-5 * expected.to_numpy().std(axis=0)).all())


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["predict", *map(str, arguments)])


def answer(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output + str(result.exception)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 1, "raised, and `main` makes it a line"
    assert "\n" not in str(result.exception)
    return str(result.exception)


def fasta(path: Path, records: dict[str, str]) -> Path:
    text = "".join(f">{gene} of a test\n{sequence}\n" for gene, sequence in records.items()).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.fixture(scope="module")
def given(genes: Genes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The genes as FASTA, each file in another order, and a table of features."""
    folder, ids = tmp_path_factory.mktemp("fasta"), genes.gene_ids.tolist()
    windows = genes.windows((genes.anchor, genes.window_length - genes.anchor))
    dna = {gene: "".join(DNA_SYMBOLS[token] for token in row) for gene, row in zip(ids, windows, strict=True)}
    proteins = dict(zip(ids[::-1], [text.lower() + "*" for text in genes.texts("protein")[::-1]], strict=True))
    table = pd.DataFrame(genes.features, columns=list(FEATURES)).assign(gene_id=ids).sample(frac=1, random_state=0)
    table.to_csv(folder / "features.tsv", sep="\t", index=False)
    return {
        "dna": fasta(folder / "dna.fa", dna),
        "protein": fasta(folder / "protein.fa.gz", proteins),
        "features": folder / "features.tsv",
    }


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path).set_index("gene_id")
    return pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", index_col="gene_id")


@pytest.mark.parametrize("out", ["levels.tsv", "levels.csv", "levels.parquet"])
def test_a_table_is_predicted_into_a_file(
    trained: Path, genes: Genes, levels: pd.DataFrame, out: str, tmp_path: Path
) -> None:
    path = tmp_path / "new" / out

    found = answer(trained, "--table", genes.folder / TABLE, "--out", path)

    assert close(read(path), levels)
    assert found == {
        "model": str(trained),
        "num_genes": genes.num_genes,
        "num_skipped": 0,
        "targets": list(TARGETS),
        "inputs": ["dna", "half_life", "protein"],
        "out": str(path),
    }
    assert [one.name for one in path.parent.iterdir()] == [out], "nothing else is left"


def test_without_a_file_predictions_go_to_stdout(trained: Path, genes: Genes, levels: pd.DataFrame) -> None:
    result = run(trained, "--table", genes.folder)

    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["gene_id", *TARGETS]
    assert [line[0] for line in lines[1:]] == levels.index.tolist()
    np.testing.assert_allclose([[float(value) for value in line[1:]] for line in lines[1:]], levels, atol=1e-5)


def test_fasta_files_joined_on_id_give_what_the_table_does(
    trained: Path, given: dict[str, Path], genes: Genes, levels: pd.DataFrame, tmp_path: Path
) -> None:
    files = [argument for name, path in given.items() for argument in (f"--{name}", path)]

    found = answer(trained, *files, "--anchor", genes.anchor, "--out", tmp_path / "levels.tsv")

    assert found["num_genes"] == genes.num_genes
    assert close(read(tmp_path / "levels.tsv"), levels)


def test_a_file_of_what_the_model_does_not_read_is_left_aside(
    of_dna: Path, given: dict[str, Path], genes: Genes, tmp_path: Path
) -> None:
    other = fasta(tmp_path / "other.fa", {"nobody": "M"})

    found = answer(
        of_dna, "--dna", given["dna"], "--protein", other, "--anchor", genes.anchor, "--out", tmp_path / "t.tsv"
    )

    assert found["num_genes"] == genes.num_genes
    assert close(read(tmp_path / "t.tsv"), raystudy.load(of_dna).predict(genes))


@pytest.mark.parametrize(("batch_size", "chunk_genes"), [(1, 512), (7, 50), (64, 3), (None, 1)])
def test_what_is_predicted_does_not_depend_on_the_genes_computed_beside_it(
    trained: Path, genes: Genes, levels: pd.DataFrame, batch_size: int | None, chunk_genes: int
) -> None:
    model = raystudy.load(trained)
    assert close(model.predict(genes, batch_size=batch_size, chunk_genes=chunk_genes), levels)

    order = np.random.default_rng(0).permutation(genes.num_genes)
    shuffled = pq.read_table(genes.folder / TABLE).take(order)
    assert close(model.predict(shuffled, batch_size=batch_size, chunk_genes=chunk_genes), levels.iloc[order])


@pytest.mark.slow  # of an export, tests/test_export.py asks the same in every run
def test_a_fresh_process_predicts_what_the_study_stored(genes: Genes, trained: Path, tmp_path: Path) -> None:
    split = make_split(genes, SplitSpec(by="random"), WINDOW, np.ones(genes.num_genes, bool))
    model = TrainedModel.load(trained / checkpoint.BEST)
    inputs = StudyData.of(genes, split, model.model, TARGETS).inputs
    stored = model.predict_inputs(inputs, LocalSession(trained))  # as a finalist's worker does
    parts = {part: getattr(split, part) for part in PARTS}
    write_predictions(tmp_path, "t0000-r0", genes.gene_ids, parts, TARGETS, stored, np.full_like(stored, np.nan))

    code = """if True:
        import sys, raystudy
        table = raystudy.load(sys.argv[1]).predict(sys.argv[2])
        table.to_parquet(sys.argv[3])
    """
    out = tmp_path / "again.parquet"
    subprocess.run([sys.executable, "-c", code, trained, genes.folder / TABLE, out], check=True, timeout=120)

    again, kept = pd.read_parquet(out), read_predictions(tmp_path, "t0000-r0", genes.gene_ids, TARGETS)
    assert again.index.tolist() == genes.gene_ids.tolist()
    known = np.isfinite(kept).all(axis=1)
    assert known.sum() >= len(split.test) > 10
    np.testing.assert_allclose(again.to_numpy()[known], kept[known], rtol=0, atol=1e-5 * kept[known].std())


def test_bf16_is_near_fp32_and_what_was_trained_in_is_the_default(
    trained: Path, genes: Genes, levels: pd.DataFrame
) -> None:
    model = raystudy.load(trained)

    half = model.predict(genes, precision="bf16")
    of_bf16 = replace(model, metrics={**model.metrics, "precision": "bf16"})
    assert of_bf16.predict(genes).equals(model.predict(genes, precision="auto")), "bf16 where that is no emulation"

    assert model.predict(genes, precision="fp32").equals(levels), "trained in fp32"
    error = (half - levels).abs() / levels.std()
    assert error.to_numpy().max() > 1e-4, "it is another precision"
    assert error.to_numpy().max() < 0.25
    assert error.to_numpy().mean() < 0.05


def test_a_study_is_its_best_finalists_best_replicate(
    fake_study: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = fake_study(num_finalists=2, seeds=2)
    monkeypatch.setenv("RAYSTUDY_HOME", str(records.folder.parent))

    expected = records.trial_folder("t0001-r0")
    assert predict.find_model("fake") == predict.find_model(str(records.folder)) == expected
    assert predict.find_model(str(expected)) == expected
    assert predict.find_model(str(expected / "best.safetensors")) == expected / "best.safetensors"


def test_a_name_that_is_no_model_is_refused_with_the_studies_there_are(
    fake_study: Callable[..., Records], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records = fake_study("unfinished", opened=False)
    monkeypatch.setenv("RAYSTUDY_HOME", str(records.folder.parent))

    with pytest.raises(DataError, match=r"'yeats'.*unfinished.*models:/"):
        predict.find_model("yeats")
    with pytest.raises(DataError, match=r"'.*nothing-here'"):
        predict.find_model(str(tmp_path / "nothing-here"))
    with pytest.raises(DataError, match="no finished finalist"):
        predict.find_model("unfinished")


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("protein", "reads the protein; .*--protein FASTA"),
        ("dna", "reads the DNA window; .*--dna FASTA"),
        ("features", "reads the half-life features; .*--features"),
    ],
)
def test_an_input_that_is_not_given_is_named_with_its_option(
    trained: Path, given: dict[str, Path], left_out: str, message: str
) -> None:
    files = [argument for name, path in given.items() if name != left_out for argument in (f"--{name}", path)]

    assert re.search(message, refusal(trained, *files, "--anchor", 600))


def test_genes_that_lack_an_input_are_counted_and_left_out_only_when_asked(
    trained: Path, genes: Genes, levels: pd.DataFrame, tmp_path: Path
) -> None:
    frame = pq.read_table(genes.folder / TABLE).to_pandas()
    frame.loc[[3, 5, 77], "protein"] = ""
    frame.loc[[5], list(FEATURES)] = np.nan
    frame["window"] = frame["window"].map(lambda row: row[genes.anchor - 100 : genes.anchor + 50])
    frame.to_parquet(tmp_path / "lacking.parquet")
    out = tmp_path / "levels.tsv"

    message = refusal(trained, "--table", tmp_path / "lacking.parquet", "--out", out)
    assert f"3 of 120 genes, the first is {genes.gene_ids[3]}," in message
    assert "--protein" in message
    assert not out.exists()

    found = answer(trained, "--table", tmp_path / "lacking.parquet", "--out", out, "--skip-missing")
    assert (found["num_genes"], found["num_skipped"]) == (117, 3)
    assert close(read(out), levels.drop(levels.index[[3, 5, 77]]))
    with pytest.raises(DataError, match="lack what the network reads"):
        raystudy.load(trained).predict(tmp_path / "lacking.parquet")


def test_ids_of_one_file_alone_are_genes_that_lack_the_other(
    trained: Path, given: dict[str, Path], tmp_path: Path
) -> None:
    extra = fasta(tmp_path / "more.fa", {"SYN00000": "MK", "EXTRA": "MKV"})
    files = ("--dna", given["dna"], "--protein", extra, "--features", given["features"], "--anchor", 600)

    assert "119 of 121 genes, the first is SYN00001, lack" in refusal(trained, *files)
    found = answer(trained, *files, "--skip-missing", "--out", tmp_path / "levels.csv")
    assert (found["num_genes"], found["num_skipped"]) == (1, 120)
    assert read(tmp_path / "levels.csv").index.tolist() == ["SYN00000"]


def test_dna_that_does_not_hold_the_window_is_refused_before_anything_is_predicted(
    of_dna: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedModel, "predict_chunks", lambda *_, **__: pytest.fail("predicted"))
    exact = {f"G{number}": "ACGTA" * 30 for number in range(3)}

    longer = fasta(tmp_path / "longer.fa", {**exact, "LONG": "A" * 151})
    assert "LONG has 151 bp" in refusal(of_dna, "--dna", longer)
    shorter = fasta(tmp_path / "shorter.fa", {**exact, "SHORT": "A" * 149})
    assert "SHORT has 149 bp" in (message := refusal(of_dna, "--dna", shorter, "--anchor", 100))
    assert "[100, 50] bp" in message


def test_dna_of_the_windows_length_needs_no_anchor(of_dna: Path, genes: Genes, tmp_path: Path) -> None:
    rows = zip(genes.gene_ids.tolist(), genes.windows(WINDOW), strict=True)
    path = fasta(
        tmp_path / "dna.fa", {gene: "".join(DNA_SYMBOLS[token] for token in row).lower() for gene, row in rows}
    )

    answer(of_dna, "--dna", path, "--out", tmp_path / "levels.tsv")

    assert close(read(tmp_path / "levels.tsv"), raystudy.load(of_dna).predict(genes))


@pytest.mark.parametrize(("encoder", "window"), [("onehot", "N" * 150), ("kmer", "ANCNN" * 30)])
def test_a_window_without_a_base_that_can_be_read_is_found_before_and_left_out_when_asked(
    encoder: str, window: str, of_dna: Path, tmp_path: Path
) -> None:
    model = raystudy.load(of_dna)
    if encoder == "kmer":
        model = replace(model, model=model.model.model_copy(update={"encoder": "kmer"}))
    windows = pd.DataFrame({"gene_id": ["G0", "G1", "G2"], "window": ["ACGTN" * 30, window, ""]})
    source, expected = partial(chunks_of, windows, model.inputs), "1 of 2 genes, the first is G1, lack what .* 3-mer"

    assert predict.check(model, source, skip_missing=True) == (1, 2)
    with pytest.raises(DataError, match=expected) as caught:
        predict.check(model, partial(chunks_of, windows[:2], model.inputs), skip_missing=False)
    assert "model.family" not in str(caught.value), "that is advice for training"
    with pytest.raises(DataError, match=expected):
        model.predict(windows[:2])
    if encoder == "onehot":
        predict.write_levels(model, source, tmp_path / "levels.tsv")
        assert read(tmp_path / "levels.tsv").index.tolist() == ["G0"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"batch_size": 0}, "`batch_size` .* but got 0"),
        ({"batch_size": -3}, "`batch_size` .* but got -3"),
        ({"chunk_genes": 0}, "`chunk_genes` .* but got 0"),
        ({"precision": "fp16"}, "`precision` is one of auto, bf16, fp32, but got 'fp16'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(of_dna: Path, genes: Genes, how: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        raystudy.load(of_dna).predict(genes, **how)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give genes either"),
        (["--table", "t.parquet", "--dna", "d.fa"], "give genes either"),
        (["--table", "t.parquet", "--features", "f.tsv"], "give genes either"),
        (["--table", "t.parquet", "--json"], "--out"),
        (["--table", "t.parquet", "--out", "levels.xlsx"], r".tsv, .csv, .parquet"),
    ],
)
def test_options_that_do_not_go_together_are_refused(trained: Path, arguments: list[str], message: str) -> None:
    assert message in refusal(trained, *arguments)


def test_nothing_half_written_is_left_and_what_was_there_stays(
    trained: Path, genes: Genes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_inputs, calls = TrainedModel.predict_inputs, []

    def fails_late(self: TrainedModel, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("no more")
        return predict_inputs(self, *arguments)

    monkeypatch.setattr(TrainedModel, "predict_inputs", fails_late)
    out = tmp_path / "levels.parquet"
    out.write_text("before")
    model = raystudy.load(trained)

    with pytest.raises(OSError, match="no more"):
        predict.write_levels(model, partial(predict_source, genes), out)

    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["levels.parquet"]
    assert out.read_text() == "before"


def predict_source(genes: Genes) -> Iterator[Sequences]:
    for first in range(0, 120, 40):
        yield Sequences.of_genes(genes, range(first, first + 40), {"dna", "protein", "half_life"})
