"""Writing exports: from a small study that was really trained, to a folder that says what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

import raystudy
from raystudy import export
from raystudy.cli import app
from raystudy.data.genes import Genes
from raystudy.errors import DataError
from raystudy.export import export_best, export_ensemble, export_model, study_called
from raystudy.tracking.records import Records
from raystudy.training.exported import Ensemble, read_config
from raystudy.training.metrics import scores
from raystudy.training.program import NoProgram
from raystudy.training.trained import TrainedModel
from tests.export_cases import FOLDS, REPLICATES, SEEDS, TARGET, Study, make_study


@pytest.fixture(autouse=True)
def _no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds; tests/training/test_exported.py is about it."""

    def refuse(*_: object) -> float:
        raise NoProgram("not traced in this test")

    monkeypatch.setattr(export, "write_program", refuse)


@pytest.fixture(scope="module")
def study(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("studies") / "small", Genes.open(synthetic_dir))


def card(out: Path) -> str:
    return (out / "README.md").read_text()


def predict_elsewhere(table: Path, to: Path, *exports: Path) -> list[dict[str, np.ndarray]]:
    """What each export says of all genes of a table, in a process that knows nothing of the study."""
    code = (
        "import sys, raystudy\n"
        "for number, export in enumerate(sys.argv[3:]):\n"
        "    raystudy.load(export).predict(sys.argv[1]).reset_index().to_parquet(f'{sys.argv[2]}/{number}.parquet')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(table), str(to), *map(str, exports)], check=True)
    tables = [pq.read_table(to / f"{number}.parquet").to_pydict() for number in range(len(exports))]
    return [{name: np.array(values) for name, values in table.items()} for table in tables]


def test_exports_say_elsewhere_what_the_study_stored(study: Study, tmp_path: Path) -> None:
    best, together = export_best(study.record), tmp_path / "out"
    export_ensemble(study.record, together)
    assert best == study.folder / "export"

    one, several = predict_elsewhere(study.genes.folder / "genes.parquet", tmp_path, best, together)

    [member] = read_config(best).members
    valid = {one.id: one.valid_r2 for one in study.record.finalists}
    assert member.replicate == max(valid, key=lambda name: valid[name])
    rows, stored = study.split.test, study.stored(member.replicate)
    assert one["gene_id"].tolist() == study.genes.gene_ids.tolist()
    np.testing.assert_allclose(one[TARGET][rows], stored, atol=1e-5, rtol=0)
    assert stored.std() > 1e-3
    mean, half_width = study.stored(*REPLICATES), read_config(together).interval.half_width[TARGET]
    for column, level in ((TARGET, mean), (f"{TARGET}_low", mean - half_width), (f"{TARGET}_high", mean + half_width)):
        np.testing.assert_allclose(several[column][rows], level, atol=1e-5, rtol=0)


def test_the_ensembles_interval_is_made_of_genes_that_each_model_did_not_train_on(study: Study, tmp_path: Path) -> None:
    export_ensemble(study.record, tmp_path / "out", coverage=0.8)

    interval = read_config(tmp_path / "out").interval
    residuals = []
    for fold in range(FOLDS):
        pairs = {name: {} for name in REPLICATES[fold * SEEDS : (fold + 1) * SEEDS]}
        for name, levels in pairs.items():
            for row in pq.read_table(study.folder / "predictions" / f"{name}.parquet").to_pylist():
                if row["part"] == "valid":
                    levels[row["gene_id"]] = (row["predicted"], row["measured"])
        first, second = pairs.values()
        residuals += [abs((first[gene][0] + second[gene][0]) / 2 - first[gene][1]) for gene in first]
    expected = sorted(residuals)[int(np.ceil(0.8 * (len(residuals) + 1))) - 1]
    assert (interval.coverage, interval.num_residuals) == (0.8, {TARGET: len(residuals)})
    assert interval.half_width[TARGET] == pytest.approx(expected, rel=1e-12)
    within = np.abs(study.stored(*REPLICATES) - study.measured()) <= expected
    measured = interval.measured[TARGET]
    assert (measured.num_covered, measured.num_genes) == (within.sum(), len(within))
    assert measured.interval[0] < measured.coverage < measured.interval[1] or measured.coverage in (0, 1)
    assert f"{measured.coverage:.3f} ({measured.num_covered} of {measured.num_genes})" in card(tmp_path / "out")


def test_the_numbers_are_the_studys_own(study: Study, tmp_path: Path) -> None:
    name = REPLICATES[1]
    found = export_model(study.folder / "finalists" / name, tmp_path / "out")["numbers"]

    own = next(one for one in study.record.finalists if one.id == name)
    assert found["search_valid_r2"] == 0.125
    assert found["valid_r2"] == pytest.approx(own.valid_r2, abs=1e-6)
    for key in ("test_r2", "test_pearson_r2", "test_spearman"):
        assert found[key] == pytest.approx(study.record.test_scores[name][key], rel=1e-9), key
    assert found["num_test_genes"] == len(study.split.test)
    low, high = found["test_r2_interval"]
    assert low < found["test_r2"] < high
    assert found["baseline"]["test_r2"] == pytest.approx(study.record.test_scores["ridge-fold0"]["test_r2"], rel=1e-9)


def test_a_network_picked_among_replicates_says_so_and_what_their_mean_is(study: Study, tmp_path: Path) -> None:
    best = export_best(study.record)
    numbers, text = read_config(best).numbers["finalist"], card(best)

    valid = {one.id: one.valid_r2 for one in study.record.finalists}
    opened = [study.record.test_scores[name]["test_r2"] for name in REPLICATES]
    assert numbers["num_replicates"] == len(REPLICATES)
    assert numbers["mean_valid_r2"] == pytest.approx(np.mean(list(valid.values())))
    assert numbers["mean_test_r2"] == pytest.approx(np.mean(opened))
    assert f"| mean of the 4 replicates | {np.mean(list(valid.values())):.3f} | {np.mean(opened):.3f} |" in text
    assert "one of 4 replicates of its finalist, t0000," in text
    assert "the one with the best validation R2 of its own" in text
    assert "These genes chose the network" not in text, "it was compared on test genes"
    export_model(study.folder / "finalists" / min(valid, key=lambda name: valid[name]), tmp_path / "worst")
    assert "the best validation R2 of its own" not in card(tmp_path / "worst")
    export_ensemble(study.record, tmp_path / "all")
    assert "mean of the 4 replicates" not in card(tmp_path / "all"), "it is all of them"


def test_each_target_has_its_own_interval_and_one_that_no_validation_gene_was_measured_for_none(
    synthetic_dir: Path, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "two", Genes.open(synthetic_dir), targets=(TARGET, "mrna"))
    both = export_ensemble(study.record, tmp_path / "both")["interval"]
    first = raystudy.load(tmp_path / "both").predict(study.genes)

    for name in REPLICATES:
        path = study.folder / "predictions" / f"{name}.parquet"
        table = pq.read_table(path).to_pandas()
        table.loc[(table["part"] == "valid") & (table["target"] == "mrna"), "measured"] = np.nan
        table.to_parquet(path)
    one = export_ensemble(study.record, tmp_path / "one")["interval"]
    second = raystudy.load(tmp_path / "one").predict(study.genes)

    assert set(both["half_width"]) == set(both["measured"]) == {TARGET, "mrna"}
    for target, half_width in both["half_width"].items():
        np.testing.assert_allclose(first[f"{target}_high"] - first[f"{target}_low"], 2 * half_width)
    assert one["half_width"] == {TARGET: both["half_width"][TARGET]}
    assert set(one["measured"]) == {TARGET}
    assert second[list(first)[:3]].equals(first[list(first)[:3]])
    assert list(second) == list(first)
    assert second[["mrna_low", "mrna_high"]].isna().to_numpy().all()
    assert "| mrna | none | 0 | not measured |" in card(tmp_path / "one")


def test_a_better_baseline_is_called_better(study: Study, tmp_path: Path) -> None:
    config = export_ensemble(study.record, tmp_path / "out")

    together = scores(study.measured()[:, None], study.stored(*REPLICATES)[:, None], [TARGET])["r2"]
    assert config["numbers"]["test_r2"] == pytest.approx(together, rel=1e-9)
    baseline = study.stored("ridge-fold0", "ridge-fold1")
    theirs = scores(study.measured()[:, None], baseline[:, None], [TARGET])["r2"]
    assert config["numbers"]["baseline"]["test_r2"] == pytest.approx(theirs, rel=1e-9)
    assert theirs > together
    text = card(tmp_path / "out")
    assert "**The best baseline, ridge, is better than the network (R2 " in text
    assert f"{theirs:.3f}" in text


def test_a_worse_baseline_and_sealed_genes_are_told_as_they_are(synthetic_dir: Path, tmp_path: Path) -> None:
    study = make_study(tmp_path / "sealed", Genes.open(synthetic_dir), opened=False, ridge_noise=9.0)

    config = export_ensemble(study.record, tmp_path / "out", coverage=0.5)

    assert config["numbers"]["test_r2"] is None
    assert config["interval"]["measured"] is None
    assert "The network is better than the best baseline, ridge" in config["numbers"]["conclusion"]
    text = card(tmp_path / "out")
    assert "on the validation genes" in text
    assert "These genes chose the network, which favours it; on the test genes it was not compared.**" in text
    assert "It was never scored on test genes." in text
    assert "| protein | " in text
    assert "not measured" in text


def test_the_card_says_what_is_read_where_it_is_from_and_how_to_make_it_again(study: Study, tmp_path: Path) -> None:
    export_ensemble(study.record, tmp_path / "out")

    text = card(tmp_path / "out")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license_name"] == "code-mit-data-not-known"
    assert "100 bp before the anchor and 50 bp from it on" in body
    assert "the first 60 residues" in body
    assert study.genes.units[TARGET] in body
    assert study.genes.hash in body
    assert study.split.hash in body
    assert "commit `abc123`, with changes that were not committed" in body
    assert "raystudy tune small.yaml --data yeast" in body
    assert "There is no `program.pt2`: not traced in this test" in body
    assert "Other organisms" in body
    for path in (tmp_path / "out").iterdir():
        assert b"/home/somebody" not in path.read_bytes(), path.name
    assert yaml.safe_load((tmp_path / "out" / "small.yaml").read_text())["data"] == {"path": "yeast"}


def test_every_file_has_its_digest(study: Study, tmp_path: Path) -> None:
    config = export_ensemble(study.record, tmp_path / "out")

    files = {path.name for path in (tmp_path / "out").iterdir()} - {"config.json"}
    assert set(config["files"]) == files == {"README.md", "small.yaml", *(f"member-{n}.safetensors" for n in range(4))}
    assert config["files"]["member-2.safetensors"] == config["members"][2]["sha256"]


def test_an_ensemble_of_one_replicate_has_its_interval_too(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    for path in study.folder.rglob("*"):
        if path.is_file() and "export" not in path.parts and not any(f"-r{n}" in str(path) for n in (1, 2, 3)):
            (folder / path.relative_to(study.folder)).parent.mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(study.folder)).write_bytes(path.read_bytes())

    export_ensemble(study_called(str(folder)), tmp_path / "out")

    model = raystudy.load(tmp_path / "out")
    assert isinstance(model, Ensemble)
    assert list(model.predict(study.genes)) == [TARGET, f"{TARGET}_low", f"{TARGET}_high"]


def test_a_trial_of_the_search_says_that_it_was_never_tested(study: Study, tmp_path: Path) -> None:
    folder = study.folder / "trials" / "t0000"
    (folder / "best.safetensors").write_bytes(
        (study.folder / "finalists" / REPLICATES[0] / "best.safetensors").read_bytes()
    )

    numbers = export_model(folder, tmp_path / "out")["numbers"]

    assert (numbers["valid_r2"], numbers["test_r2"]) == (0.125, None)
    assert numbers["baseline"]["test_r2"] == pytest.approx(study.record.test_scores["ridge"]["test_r2"], rel=1e-9)
    assert "It was never scored on test genes." in card(tmp_path / "out")
    assert "It was not compared with the study's best baseline, ridge" in card(tmp_path / "out")


def test_the_best_is_exported_once_and_again_where_it_changed(study: Study) -> None:
    path = export_best(study.record) / "config.json"
    written = path.stat().st_mtime_ns
    export_best(study.record)
    assert path.stat().st_mtime_ns == written

    document = json.loads(path.read_text())
    document["numbers"]["test_r2"] = 1.0
    path.write_text(json.dumps(document))
    export_best(study.record)
    assert json.loads(path.read_text())["numbers"]["test_r2"] < 1


HARM: dict[str, Callable[[Path], object]] = {
    "of another version": lambda out: (out / "config.json").write_text('{"format": "raystudy-export", "version": 9}'),
    "a torn description": lambda out: (out / "config.json").write_text('{"format": "rayst'),
    "weights cut short": lambda out: (out / "member-0.safetensors").write_bytes(b"short"),
    "no weights": lambda out: (out / "member-0.safetensors").unlink(),
    "one file more": lambda out: (out / ".DS_Store").touch(),
    "one folder more": lambda out: (out / "notes").mkdir(),
    "no description": lambda out: (out / "config.json").unlink(),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_studys_own_export_that_is_not_whole_is_made_anew(harm: str, study: Study) -> None:
    out = export_best(study.record)
    whole = sorted(path.name for path in out.iterdir())
    HARM[harm](out)

    assert export_best(study.record) == out

    assert sorted(path.name for path in out.iterdir()) == whole
    assert isinstance(raystudy.load(out), TrainedModel)
    assert not list(study.folder.glob(".export*")), "nothing is left beside it"


def test_where_the_new_export_cannot_be_put_the_older_one_comes_back(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", Path.replace
    export_ensemble(study.record, out)

    def fails(self: Path, target: Path) -> Path:
        if Path(target) == out and not self.name.endswith("-older"):
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(KeyboardInterrupt):
        export_model(study.folder / "finalists" / REPLICATES[0], out)

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert isinstance(raystudy.load(out), Ensemble)


def test_a_checkpoint_just_below_the_root_has_no_study(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no checkpoint"):
        export_model(Path("/no-such-checkpoint.safetensors"), tmp_path / "out")


def test_the_command_exports_a_model_and_an_ensemble(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSTUDY_HOME", str(study.folder.parent))
    run = CliRunner()

    one = run.invoke(app, ["export", "small", "--out", str(tmp_path / "one"), "--json"])
    several = run.invoke(app, ["export", "small", "--ensemble", "--coverage", "0.5", "--out", str(tmp_path / "many")])

    assert json.loads(one.stdout)["num_members"] == 1
    assert several.exit_code == 0
    assert read_config(tmp_path / "many").interval.coverage == 0.5
    refused = run.invoke(app, ["export", "small", "--coverage", "0.5", "--out", str(tmp_path / "no")])
    assert "add --ensemble" in str(refused.exception)


def test_a_checkpoint_without_its_study_says_that_nothing_else_is_known(study: Study, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((study.folder / "finalists" / REPLICATES[0] / "best.safetensors").read_bytes())

    config = export_model(alone, tmp_path / "out")

    assert (config["study"], config["units"]) == (None, None)
    assert "its study, its data and its split are not known here" in card(tmp_path / "out")
    again, first = raystudy.load(tmp_path / "out"), raystudy.load(alone)
    assert again.predict(study.genes).equals(first.predict(study.genes))


@pytest.mark.parametrize("name", ["notes.txt", ".hidden"])
def test_a_folder_that_holds_something_else_is_left_alone(name: str, study: Study, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")

    with pytest.raises(DataError, match=f"holds {name}"):
        export_model(study.folder / "finalists" / REPLICATES[0], tmp_path / "out")

    assert [path.name for path in tmp_path.rglob("*")] == ["out", name]


def test_an_older_export_is_replaced_unless_something_was_added(study: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is as good as none
    export_ensemble(study.record, out)
    export_model(study.folder / "finalists" / REPLICATES[0], out)

    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "member-0.safetensors", "small.yaml",
    ]  # fmt: skip
    (out / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"mine\.txt"):
        export_ensemble(study.record, out)
    assert len(read_config(out).members) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_damaged_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").write_bytes(b"weights")

    with pytest.raises(DataError, match="not a checkpoint"):
        export_model(tmp_path, tmp_path / "out")

    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_what_cannot_be_exported_is_said(study: Study, tmp_path: Path) -> None:
    export_model(study.folder / "finalists" / REPLICATES[0], tmp_path / "out")
    with pytest.raises(DataError, match="is an export already"):
        export_model(tmp_path / "out", tmp_path / "again")
    with pytest.raises(DataError, match="there is no checkpoint"):
        export_model(tmp_path / "nowhere", tmp_path / "again")
    with pytest.raises(DataError, match="there is no study 'nowhere'"):
        study_called("nowhere")
    with pytest.raises(DataError, match=r"between 0 and 1, but got 1"):
        export_ensemble(study.record, tmp_path / "again", coverage=1)
    with pytest.raises(DataError, match=r"too few for an interval at coverage 0\.999"):
        export_ensemble(study.record, tmp_path / "again", coverage=0.999)
    with pytest.raises(DataError, match="no finalist of study 'nothing' is complete"):
        export_ensemble(Records(tmp_path / "nothing").read(), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_study_without_predictions_cannot_have_an_interval(study: Study, tmp_path: Path) -> None:
    record = study.record
    record.folder = tmp_path

    with pytest.raises(DataError, match="the interval is made from those"):
        export_ensemble(record, tmp_path / "out")
