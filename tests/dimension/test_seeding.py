"""Which widths follow from an estimate, and that an estimate is made once."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from raystudy.data.genes import Genes
from raystudy.data.tables import GeneFeatures
from raystudy.dimension import consensus, seeding
from raystudy.dimension.clouds import Cloud
from raystudy.dimension.consensus import DimensionEstimate
from raystudy.dimension.seeding import dimension_of, seed_widths
from raystudy.errors import DataError, SpecError


def found(value: float | None, representation: str = "kmer3", input: str = "dna") -> DimensionEstimate:
    return DimensionEstimate(
        representation=representation,
        input=input,
        estimates={} if value is None else {"MLE": value},
        spread={},
        consensus=value,
        mean=value,
        interval=None if value is None else [value - 1, value + 1],
        refused={"MLE": "too few points", "TwoNN": "too few points", "MOM": "a lattice"} if value is None else {},
        seconds={},
        points={},
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


def embedding(content: str = "e" * 64) -> GeneFeatures:
    values = np.random.default_rng(1).normal(size=(80, 4)).astype(np.float32)
    return GeneFeatures(values, ("0", "1", "2", "3"), content, 0, 0)


@pytest.mark.parametrize(
    ("value", "low", "high", "affordable", "widths", "clamped"),
    [
        (22.2, 8, 128, None, (16, 32), False),
        (23.9, 8, 128, None, (32, 16), False),  # nearer to 32 on the log scale that widths live on
        (40.0, 8, 128, None, (32, 64, 16), False),
        (50.0, 8, 128, None, (64, 32, 16), False),
        (64.0, 8, 128, None, (64, 16), False),
        (16.0, 8, 128, None, (16,), False),
        (5.0, 4, 128, None, (4, 8, 16), False),
        (5.0, 8, 128, None, (8, 16), True),
        (1.2, 8, 128, None, (8, 16), True),
        (318.0, 8, 128, None, (128, 16), True),
        (22.2, 32, 128, None, (32,), True),
        (22.2, 4, 8, None, (8,), True),
        (22.2, 10, 100, None, (16, 32), False),
        (200.0, 10, 100, None, (64, 16), True),
        (40.0, 8, 128, 128, (32, 64, 16), False),
        (40.0, 8, 128, 64, (32, 64, 16), False),
        (40.0, 8, 128, 32, (32, 16), True),
        (40.0, 8, 128, 8, (8,), True),
        (40.0, 8, 128, 1, (8,), True),  # nothing is affordable: what is narrowest
        (318.0, 8, 64, 256, (64, 16), True),
        (None, 8, 128, None, (16,), False),
        (None, 32, 128, None, (32,), True),
        (None, 4, 8, None, (8,), True),
        (None, 8, 128, 8, (8,), True),
    ],
)
def test_widths_are_the_neighbouring_powers_of_two_inside_the_limits_and_sixteen(
    value: float | None, low: int, high: int, affordable: int | None, widths: tuple[int, ...], clamped: bool
) -> None:
    seeded = seed_widths(found(value), low, high, affordable)
    assert seeded.widths == widths
    assert seeded.clamped is clamped
    assert ("clamped" in seeded.provenance["note"]) is clamped


@pytest.mark.parametrize("value", [None, 1.01, 3.0, 16.0, 100.0, 1e6])
@pytest.mark.parametrize(("low", "high"), [(4, 128), (16, 16), (10, 30)])
def test_sixteen_is_always_tried_where_the_space_has_it(value: float | None, low: int, high: int) -> None:
    assert 16 in seed_widths(found(value), low, high).widths


def test_the_note_says_what_moved_which_width() -> None:
    note = seed_widths(found(40.0), 8, 128, 32).provenance["note"]
    assert note.startswith("powers of two around the consensus 40.0, and the published 16; clamped by ")
    assert note.endswith("by `budget.parameters`, to which every configuration keeps up to a width of 32: 64 to 32")
    unlimited = seed_widths(found(200.0), 8, 128, 1024).provenance["note"]
    assert "budget.parameters" not in unlimited
    assert unlimited.endswith("256 to 128")


def test_the_provenance_says_where_the_widths_come_from() -> None:
    provenance = seed_widths(found(22.2, "composition", "protein"), 8, 128).provenance
    assert provenance.keys() == {"representation", "input", "estimates", "consensus", "interval", "flags", "note"}
    assert (provenance["representation"], provenance["input"]) == ("composition", "protein")
    assert (provenance["estimates"], provenance["consensus"]) == ({"MLE": 22.2}, 22.2)
    assert provenance["interval"] == [21.2, 23.2]
    json.dumps(provenance, allow_nan=False)


def test_with_everything_refused_the_provenance_says_each_reason_once() -> None:
    provenance = seed_widths(found(None), 8, 128).provenance
    assert provenance["note"] == (
        "every estimator refused (too few points; a lattice), so only the published 16 is tried first"
    )
    assert (provenance["consensus"], provenance["interval"], provenance["estimates"]) == (None, None, {})


@pytest.mark.parametrize(("low", "high"), [(128, 8), (0, 8), (9, 15)])
def test_a_space_without_a_power_of_two_is_a_spec_error(low: int, high: int) -> None:
    with pytest.raises(SpecError, match=rf"low={low}, high={high}"):
        seed_widths(found(22.2), low, high)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """What was estimated rather than read: representation, input and number of genes."""
    estimated: list[tuple[str, str, int]] = []

    def counting(cloud: Cloud, representation: str, input: str, also: Collection[str] = ()) -> DimensionEstimate:
        estimated.append((representation, input, len(cloud)))
        return found(10.0 + len(estimated), representation, input)

    monkeypatch.setattr(seeding, "estimate", counting)
    return estimated


DEFAULT = [("kmer3", "dna", 80), ("kmer4", "dna", 80), ("onehot", "dna", 80), ("composition", "protein", 80)]


def test_the_other_representations_stand_beside_the_chosen_one(made: list[tuple[str, str, int]]) -> None:
    document = dimension_of(fake_genes(), (200, 100))
    assert made == DEFAULT
    assert (document["representation"], document["input"], document["window_bp"]) == ("kmer3", "dna", [200, 100])
    assert list(document["others"]) == ["kmer4", "onehot", "composition of protein"]
    assert document["others"]["composition of protein"]["input"] == "protein"
    assert all("others" not in other for other in document["others"].values())


@pytest.mark.parametrize(
    ("representation", "input", "names"),
    [
        ("kmer3", "dna", ["kmer4", "onehot", "composition"]),
        ("kmer3", "protein", ["onehot", "composition"]),
        ("kmer3", "both", ["onehot", "composition"]),
        ("onehot", "dna", ["kmer3", "kmer4", "composition"]),
        ("composition", "protein", ["onehot"]),
        ("kmer4", "dna", ["kmer3", "onehot", "composition"]),
    ],
)
def test_the_others_represent_the_input_that_was_asked_for(
    representation: str, input: str, names: list[str], made: list[tuple[str, str, int]]
) -> None:
    document = dimension_of(fake_genes(), (200, 100), representation, input)
    assert list(document["others"]) == names
    assert {document["input"], *(other["input"] for other in document["others"].values())} == {input}


def test_only_the_others_that_are_named_are_estimated_and_each_once(made: list[tuple[str, str, int]]) -> None:
    document = dimension_of(fake_genes(), (200, 100), others=("kmer4", "kmer3", "kmer4"))
    assert list(document["others"]) == ["kmer4"]
    assert len(made) == 2
    assert dimension_of(fake_genes(), (200, 100), others=())["others"] == {}


def test_only_the_genes_asked_for_are_seen(made: list[tuple[str, str, int]]) -> None:
    dimension_of(fake_genes(), (200, 100), rows=np.arange(60))
    assert {num_points for _, _, num_points in made} == {60}


def test_an_embedding_is_one_more_representation(made: list[tuple[str, str, int]]) -> None:
    document = dimension_of(fake_genes(), (200, 100), "embedding", embedding=embedding())
    assert document["representation"] == "embedding"
    assert {name.split()[0] for name in document["others"]} == {"kmer3", "kmer4", "onehot", "composition"}


def test_the_real_estimate_becomes_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consensus, "FAST", ("TwoNN", "MLE", "lPCA"))
    document = dimension_of(fake_genes(), (200, 100), others=("composition",))
    assert set(document) - {"window_bp", "others"} == set(DimensionEstimate.__dataclass_fields__)
    assert (document["num_points"], document["num_duplicates"]) == (80, 0)
    assert document["estimates"].keys() | document["refused"].keys() == {"TwoNN", "MLE", "lPCA"}
    assert document["curve"]["rule"]
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("arguments", [{"representation": "kmr3"}, {"input": "rna"}, {"others": ["kmr4"]}])
def test_a_name_that_does_not_exist_is_refused(arguments: dict[str, Any], made: list[tuple[str, str, int]]) -> None:
    with pytest.raises(SpecError, match="Did you mean"):
        dimension_of(fake_genes(), (200, 100), **arguments)


def test_a_second_call_reads_the_cache(tmp_path: Path, made: list[tuple[str, str, int]]) -> None:
    folder = tmp_path / "new"
    first = dimension_of(fake_genes(), (200, 100), cache_folder=folder)
    assert made == DEFAULT
    assert dimension_of(fake_genes(), (200, 100), cache_folder=folder) == first
    swapped = dimension_of(fake_genes(), (200, 100), "kmer4", others=("kmer3",), cache_folder=folder)
    assert swapped["others"]["kmer3"]["estimates"] == first["estimates"]
    assert made == DEFAULT
    assert len(list(folder.iterdir())) == 4
    assert list(folder.glob("dimension-kmer3-dna-*.json"))


def test_the_same_genes_in_another_order_are_the_same_genes(tmp_path: Path, made: list[tuple[str, str, int]]) -> None:
    for rows in (np.arange(60), np.arange(60)[::-1]):
        dimension_of(fake_genes(), (200, 100), others=(), rows=rows, cache_folder=tmp_path)
    assert len(made) == 1


CHANGES: dict[str, dict[str, Any]] = {
    "data": {"genes": fake_genes(content="bbbb")},
    "window": {"window_bp": (200, 50)},
    "rows": {"rows": np.arange(70)},
    "other rows": {"rows": np.arange(10, 80)},
    "representation": {"representation": "kmer4"},
    "input": {"input": "both"},
    "embedding": {"representation": "embedding", "embedding": embedding()},
    "slow estimators": {"also": ["PH"]},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_anything_that_changes_the_answer_is_estimated_again(
    changed: str, tmp_path: Path, made: list[tuple[str, str, int]]
) -> None:
    arguments: dict[str, Any] = {"genes": fake_genes(), "window_bp": (200, 100), "others": (), "cache_folder": tmp_path}
    if changed == "other rows":
        arguments["rows"] = np.arange(70)
    first = dimension_of(**arguments)
    again = dimension_of(**{**arguments, **CHANGES[changed]})
    assert len(made) == 2
    assert again["consensus"] != first["consensus"]
    assert dimension_of(**arguments) == first
    assert len(made) == 2


def test_an_embedding_with_other_numbers_is_estimated_again(tmp_path: Path, made: list[tuple[str, str, int]]) -> None:
    for content in ("e" * 64, "f" * 64, "e" * 64):
        dimension_of(
            fake_genes(), (200, 100), "embedding", others=(), embedding=embedding(content), cache_folder=tmp_path
        )
    assert len(made) == 2


@pytest.mark.parametrize("changed", ["raystudy", "scikit-dimension", "method"])
def test_another_version_estimates_again(
    changed: str, tmp_path: Path, made: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path)
    if changed == "raystudy":
        monkeypatch.setattr("raystudy.__version__", "0.0.0")
    elif changed == "method":
        monkeypatch.setattr(seeding, "METHOD", 0)
    else:
        monkeypatch.setattr(seeding, "version", lambda _: "0.0.0")
    dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path)
    assert len(made) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": {}}', '{"key": 1, "estimate": {}}'])
def test_a_cache_that_cannot_be_read_is_made_anew(text: str, tmp_path: Path, made: list[tuple[str, str, int]]) -> None:
    dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = json.loads(path.read_text())
    path.write_text(text)
    dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path)
    assert len(made) == 2
    assert json.loads(path.read_text())["key"] == whole["key"]
    assert list(tmp_path.iterdir()) == [path], "no partial file is left"


def test_a_cached_estimate_of_an_older_version_of_the_file_is_made_anew(
    tmp_path: Path, made: list[tuple[str, str, int]]
) -> None:
    dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = json.loads(path.read_text())
    del whole["estimate"]["curve"]
    path.write_text(json.dumps(whole))
    assert "curve" in dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path)
    assert len(made) == 2


def test_nothing_is_kept_without_a_folder(
    tmp_path: Path, made: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        dimension_of(fake_genes(), (200, 100), others=())
    assert len(made) == 2
    assert list(tmp_path.iterdir()) == []


def test_an_embedding_of_no_gene_is_no_estimate(tmp_path: Path) -> None:
    table = embedding()
    table.values[:] = np.nan
    with pytest.raises(DataError, match="no gene of the data with all its values"):
        dimension_of(fake_genes(), (200, 100), "embedding", others=(), embedding=table, cache_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_cannot_be_kept_is_still_an_answer(tmp_path: Path, made: list[tuple[str, str, int]]) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    document = dimension_of(fake_genes(), (200, 100), others=(), cache_folder=tmp_path / "cache")
    assert document["consensus"] == 11.0


def test_an_embedding_takes_no_input() -> None:
    with pytest.raises(SpecError, match=r"`input` is 'dna', but an embedding is of the whole gene"):
        dimension_of(fake_genes(), (200, 100), "embedding", "dna", embedding=embedding())


def test_a_limit_that_no_width_keeps_to_leaves_the_narrowest_and_says_so() -> None:
    seeded = seed_widths(found(40.0), 8, 128, affordable=0)
    assert (seeded.widths, seeded.clamped) == ((8,), True)
    assert "`budget.parameters` may refuse any of these widths" in seeded.provenance["note"]
    assert seed_widths(found(40.0), 8, 128, affordable=50).widths == (32, 16)
