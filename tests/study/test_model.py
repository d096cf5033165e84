"""The network's keys: presets by name, what a family reads, and rules that are told with key and value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from raystudy.errors import SpecError
from raystudy.study.model import PRESETS, ModelSpec, TrainingSpec, configure, nearest

DNA_FIRST = {"family": "dna_protein", "perceiver_input": "dna"}


def refusal(**given: Any) -> str:
    with pytest.raises(ValidationError) as error:
        ModelSpec(**given)
    return str(error.value)


def test_the_networks_of_the_literature_are_found_by_name() -> None:
    assert set(PRESETS) == {
        "dnaperceiver", "dnaperceiver_dual", "proteinperceiver", "protein_dna", "table1", "xpresso",
    }  # fmt: skip
    assert PRESETS["dnaperceiver_dual"].targets == ("mrna", "protein")
    assert PRESETS["dnaperceiver"].published_position_rows == 20_000
    assert all(preset.source for preset in PRESETS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_what_was_published_and_counts_as_said_by_its_name_only(name: str) -> None:
    spec = ModelSpec(preset=name)

    assert {key: getattr(spec, key) for key in PRESETS[name].settings} == PRESETS[name].settings
    assert spec.model_fields_set == {"preset"}
    assert not spec.unread & PRESETS[name].settings.keys() - {"half_life"}


@pytest.mark.parametrize(
    ("name", "reads", "window_bp", "queries_dim", "pool_size", "latent_summary"),
    [
        ("dnaperceiver", ("base", "base"), (7000, 3500), 64, 12, False),
        ("dnaperceiver_dual", ("base", "base"), (7000, 3500), 64, 10, False),
        ("proteinperceiver", ("residue", "residue"), (7000, 3500), 64, 10, False),
        ("protein_dna", ("base", "residue"), (5000, 3000), 64, 10, False),
        ("table1", ("residue", "base"), (7000, 3500), 128, 10, True),
    ],
)
def test_each_preset_is_the_network_of_its_paper(
    name: str,
    reads: tuple[str, str],
    window_bp: tuple[int, int],
    queries_dim: int,
    pool_size: int,
    latent_summary: bool,
) -> None:
    spec = ModelSpec(preset=name)

    assert (spec.perceiver_reads, spec.convolution_reads) == reads
    assert (spec.window_bp, spec.max_protein) == (window_bp, 6000)
    assert (spec.queries_dim, spec.pool_size, spec.latent_summary) == (queries_dim, pool_size, latent_summary)
    assert (spec.num_latents, spec.latent_dim, spec.depth, spec.token_dim, spec.dropout) == (128, 128, 1, 32, 0.2)


def test_what_is_said_beats_the_preset() -> None:
    spec = ModelSpec(preset="dnaperceiver", pool_size=6, half_life="mlp")

    assert (spec.pool_size, spec.half_life, spec.queries_dim) == (6, "mlp", 64)
    assert spec.model_fields_set == {"preset", "pool_size", "half_life"}


@pytest.mark.parametrize("name", ["table2", "", "Table1", 3, ["table1"], {"table1": 1}])
def test_an_unknown_preset_is_refused_with_the_known_ones(name: Any) -> None:
    message = refusal(preset=name)
    assert (
        "`preset` is one of dnaperceiver, dnaperceiver_dual, proteinperceiver, protein_dna, table1, xpresso" in message
    )
    assert repr(name) in message


def test_only_what_was_given_counts_as_set() -> None:
    assert ModelSpec().model_fields_set == set()
    assert ModelSpec(family="protein").model_fields_set == {"family"}
    assert ModelSpec(latent_dim=128).model_fields_set == {"latent_dim"}


@pytest.mark.parametrize("former", [{}, {"preset": "table1"}, {"preset": "xpresso"}, {"family": "protein"}])
@pytest.mark.parametrize("family", ["dna", "protein", "dna_protein", "xpresso"])
def test_another_family_is_not_held_to_the_former_ones_defaults(former: dict[str, str], family: str) -> None:
    said = ModelSpec(**former).model_dump(exclude_unset=True)

    changed = ModelSpec(**{**said, "family": family})

    assert changed.family == family
    assert changed.half_life == ("none" if family == "protein" else "concat")


@pytest.mark.parametrize("former", [*PRESETS])
@pytest.mark.parametrize("name", [*PRESETS])
def test_another_preset_takes_the_former_ones_place(former: str, name: str) -> None:
    said = ModelSpec(preset=former).model_dump(exclude_unset=True)
    assert ModelSpec(**{**said, "preset": name}) == ModelSpec(preset=name)


@pytest.mark.parametrize(
    ("given", "perceiver", "convolution", "inputs"),
    [
        ({"family": "dna"}, "base", "base", {"dna", "half_life"}),
        ({"family": "dna", "encoder": "kmer"}, "kmer", "base", {"dna", "half_life"}),
        ({"family": "dna", "encoder": "embedding"}, "base", "base", {"dna", "half_life"}),
        ({"family": "dna", "half_life": "none"}, "base", "base", {"dna"}),
        ({"family": "protein"}, "residue", "residue", {"protein"}),
        ({"family": "protein", "tokens": "codon"}, "codon", "codon", {"codon"}),
        ({"family": "dna_protein"}, "residue", "base", {"dna", "protein", "half_life"}),
        ({"family": "dna_protein", "tokens": "codon"}, "codon", "base", {"dna", "codon", "half_life"}),
        ({"family": "dna_protein", "half_life": "mlp"}, "residue", "base", {"dna", "protein", "half_life"}),
        (DNA_FIRST, "base", "residue", {"dna", "protein", "half_life"}),
        ({**DNA_FIRST, "encoder": "kmer", "tokens": "codon"}, "kmer", "codon", {"dna", "codon", "half_life"}),
        ({"family": "xpresso"}, None, "base", {"dna", "half_life"}),
        ({"family": "xpresso", "half_life": "none"}, None, "base", {"dna"}),
    ],
)
def test_each_family_reads_its_own(
    given: dict[str, Any], perceiver: str | None, convolution: str, inputs: set[str]
) -> None:
    spec = ModelSpec(**given)

    assert (spec.perceiver_reads, spec.convolution_reads) == (perceiver, convolution)
    assert spec.inputs == inputs


@pytest.mark.parametrize(
    ("given", "latents", "query"),
    [
        ({"family": "dna"}, True, True),
        ({"family": "dna", "half_life": "none"}, False, False),
        ({"family": "protein"}, False, False),
        ({"family": "dna_protein"}, False, True),
        ({**DNA_FIRST, "half_life": "mlp"}, True, False),
        ({**DNA_FIRST, "encoder": "kmer"}, True, False),
        ({"family": "xpresso"}, False, True),
    ],
)
def test_half_life_features_join_where_dna_is_read(given: dict[str, Any], latents: bool, query: bool) -> None:
    spec = ModelSpec(**given)
    assert (spec.half_life_joins_latents, spec.half_life_joins_query) == (latents, query)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({**DNA_FIRST, "encoder": "embedding"}, "`encoder: embedding` needs DNA in the convolution, but family"),
        ({"family": "protein", "encoder": "embedding"}, "needs DNA in the convolution, but family `protein` has"),
        (
            {"encoder": "kmer"},
            "`encoder: kmer` needs DNA in the Perceiver branch, but family `dna_protein` with `perceiv",
        ),
        ({"family": "protein", "encoder": "kmer"}, "`encoder: kmer` needs DNA in the Perceiver branch, but family `pr"),
        ({"family": "xpresso", "encoder": "kmer"}, "`encoder: kmer` needs DNA in the Perceiver branch, but family `xp"),
        ({"family": "dna", "tokens": "codon"}, "`tokens: codon` needs a protein to read, but family `dna` reads none"),
        ({"family": "xpresso", "tokens": "codon"}, "`tokens: codon` needs a protein to read, but family `xpresso`"),
        (
            {"family": "protein", "half_life": "concat"},
            "family `protein` reads no half-life features; remove `half_life",
        ),
        ({"family": "protein", "half_life": "mlp"}, "remove `half_life: mlp`"),
        ({"latent_dim": 20}, "`latent_dim` must be a multiple of its 8 attention heads, but got 20"),
        ({"window_bp": (-1, 500)}, "none negative, but got [-1, 500]"),
        ({"window_bp": (0, 0)}, "none negative, but got [0, 0]"),
        (
            {"family": "dna", "window_bp": (100, 100)},
            "a window of 200 bp is shorter than the 250 that pooling by 10 and 5",
        ),
        (
            {"family": "xpresso", "window_bp": (100, 199)},
            "a window of 299 bp is shorter than the 300 that pooling by 30 and 10",
        ),
        ({"family": "protein", "max_protein": 249}, "a protein of 249 residues is shorter than the 250"),
        ({**DNA_FIRST, "max_protein": 9, "pool_size": 4}, "a protein of 9 residues is shorter than the 16"),
        ({"position_rows": 5999}, "`position_rows` must reach the 6000 symbols that are read, but got 5999"),
        ({"family": "dna", "position_rows": 10_499}, "`position_rows` must reach the 10500 symbols"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_with_the_values(given: dict[str, Any], told: str) -> None:
    assert told in refusal(**given)


@pytest.mark.parametrize("family", ["protein", "xpresso"])
def test_a_hint_names_no_key_that_the_family_does_not_read(family: str) -> None:
    message = refusal(family=family, window_bp=(10, 10), max_protein=20)
    assert not [key for key in ModelSpec(family=family).unread if f"`{key}`" in message]


@pytest.mark.parametrize(
    ("given", "pools", "smallest"),
    [
        ({"pool_size": 10}, (10, 5, 5), 250),
        ({"pool_size": 12}, (12, 6, 6), 432),
        ({"pool_size": 5}, (5, 2, 2), 20),
        ({"pool_size": 2}, (2, 1, 1), 2),
        ({"family": "xpresso"}, (30, 10), 300),
    ],
)
def test_pooling_needs_a_smallest_length_and_that_is_enough(
    given: dict[str, Any], pools: tuple[int, ...], smallest: int
) -> None:
    spec = ModelSpec(**given)

    assert (spec.pools, spec.smallest_length) == (pools, smallest)
    assert ModelSpec(**given, window_bp=(0, smallest)).convolution_length == smallest
    with pytest.raises(ValidationError, match="is shorter than"):
        ModelSpec(**given, window_bp=(0, smallest - 1))


def test_only_the_convolutions_input_must_be_longer_than_the_pooling() -> None:
    assert ModelSpec(family="dna_protein", max_protein=1).perceiver_length == 1
    assert ModelSpec(**DNA_FIRST, window_bp=(1, 0)).perceiver_length == 1


@pytest.mark.parametrize(
    ("given", "length"),
    [({}, 6000), ({"tokens": "codon"}, 6000), (DNA_FIRST, 10_500), ({**DNA_FIRST, "encoder": "kmer"}, 10_500)],
)
def test_position_rows_reach_what_the_perceiver_reads_or_further(given: dict[str, Any], length: int) -> None:
    assert ModelSpec(**given).perceiver_length == length
    assert ModelSpec(**given, position_rows=length).position_rows == length
    assert ModelSpec(**given, position_rows=20_000).position_rows == 20_000
    assert ModelSpec(**given).position_rows is None


@pytest.mark.parametrize(
    "given",
    [
        *({"preset": name} for name in PRESETS),
        {},
        {"preset": "dnaperceiver", "position_rows": 20_000, "window_bp": (3000, 500)},
        {"family": "protein", "tokens": "codon"},
        {**DNA_FIRST, "encoder": "kmer", "half_life": "mlp", "window_bp": (300, 200), "depth": 2, "dropout": 0.0},
        {"family": "xpresso", "encoder": "embedding", "half_life": "none"},
    ],
)
def test_a_whole_configuration_written_as_json_is_read_as_the_same(given: dict[str, Any]) -> None:
    model, training = ModelSpec(**given), TrainingSpec(epochs=3, attention="math")

    flat = json.loads(json.dumps({**model.model_dump(), **training.model_dump()}))
    again, as_before = configure(flat)

    assert isinstance(flat["window_bp"], list)
    assert (again, as_before) == (model, training)
    assert again.window_bp == model.window_bp
    assert again.model_dump() == model.model_dump()


def test_a_flat_configuration_is_parted_into_network_and_training() -> None:
    model, training = configure({"latent_dim": 16, "batch_size": 8})

    assert model == ModelSpec(latent_dim=16)
    assert training == TrainingSpec(batch_size=8)
    assert model.model_fields_set == {"latent_dim"}


def test_an_unknown_parameter_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(SpecError, match="unknown parameter `latnt_dim`, did you mean `latent_dim`"):
        configure({"latnt_dim": 8})
    with pytest.raises(SpecError, match=r"unknown parameter `zzz`; known are attention, batch_size, .*window_bp"):
        configure({"zzz": 8})
    assert nearest("epoch", ["epochs", "depth"]) == ", did you mean `epochs`?"


def test_no_key_stands_for_the_network_and_for_the_training() -> None:
    assert not ModelSpec.model_fields.keys() & TrainingSpec.model_fields.keys()


@pytest.mark.parametrize("section", [ModelSpec, TrainingSpec])
def test_every_key_is_documented(section: type[ModelSpec] | type[TrainingSpec]) -> None:
    assert [key for key, field in section.model_fields.items() if not field.description] == []


def test_a_network_cannot_be_altered() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ModelSpec().latent_dim = 8


def test_a_key_that_came_later_is_written_only_where_it_says_something() -> None:
    assert "half_life_missing" not in ModelSpec().model_dump()
    assert "half_life_missing" not in ModelSpec(half_life_missing="mean").model_dump(exclude_unset=True)
    assert "deterministic" not in TrainingSpec().model_dump()
    assert TrainingSpec(deterministic=True).model_dump()["deterministic"] is True
    marked = ModelSpec(half_life_missing="indicator")
    assert marked.model_dump()["half_life_missing"] == "indicator"
    assert ModelSpec(**marked.model_dump()) == marked
    assert marked.reading != ModelSpec().reading
    assert ModelSpec(half_life="none", half_life_missing="indicator").reading == ModelSpec(half_life="none").reading
