"""Files as users have them: each malformed one ends in an error that names it, or in a counted, reported repair.

In no case is a gene of the table another one than in the table of the clean files.
"""

from __future__ import annotations

import os
import re
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raystudy.data.archives import read_members
from raystudy.data.findings import EXAMPLES, Findings
from raystudy.data.genes import Genes, GeneTable, write_genes
from raystudy.data.sources import build
from raystudy.errors import DataError, SpecError
from tests.data.genome.malformed_cases import REFUSED_WHATEVER_IT_IS, SAME_WHATEVER_PACKS_IT, Case, refused, same, write
from tests.data.genome.malformed_genomes import FA, GB, GFF, IN_ANNOTATION, IN_FASTA, NAMES, PROTEINS, TSS, TSV
from tests.data.genome.malformed_tables import IN_GENBANK, IN_GTF, IN_PROTEINS, IN_TABLE, IN_TSS
from tests.data.genome.malformed_xpresso import ARCHIVES, IN_XPRESSO

CASES: dict[str, Case] = {
    **{
        f"{file} with {what}": same(file, change)
        for file in (FA, GFF, GB, TSV)
        for what, change in SAME_WHATEVER_PACKS_IT.items()
    },
    **{
        f"{file} as {what}": refused(file, change, said)
        for file in (FA, GFF, GB, TSV, TSS, PROTEINS)
        for what, (change, said) in REFUSED_WHATEVER_IT_IS.items()
    },
    **{f"FASTA: {name}": case for name, case in IN_FASTA.items()},
    **{f"annotation: {name}": case for name, case in IN_ANNOTATION.items()},
    **{f"names: {name}": case for name, case in NAMES.items()},
    **{f"table: {name}": case for name, case in IN_TABLE.items()},
    **{f"TSS: {name}": case for name, case in IN_TSS.items()},
    **{f"proteins: {name}": case for name, case in IN_PROTEINS.items()},
    **{f"GTF: {name}": case for name, case in IN_GTF.items()},
    **{f"GenBank: {name}": case for name, case in IN_GENBANK.items()},
    **{f"Xpresso: {name}": case for name, case in IN_XPRESSO.items()},
}


def source_of(variant: str) -> str:
    return "xpresso" if variant in ("xpresso", "joined") else "genome"


class Clean:
    """The clean files of each variant and their table, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables: dict[str, GeneTable] = {}
        self.options: dict[str, dict[str, Any]] = {}

    def files(self, variant: str) -> Path:
        folder = self.folder / variant
        if variant not in self.options:
            made, self.options[variant] = write(variant, folder)
            table = build(source_of(variant), **self.options[variant])
            if made is not None:
                planted = {gene.gene_id: (gene.coding, gene.protein) for gene in made.genes}
                made_of = zip(table.cds, table.proteins, strict=True)
                assert dict(zip(table.gene_ids, made_of, strict=True)) == planted
            assert table.notes["findings"] == Findings().as_json()
            self.tables[variant] = table
        return folder

    def table(self, case: Case) -> GeneTable:
        self.files(case.variant)
        if "target" in case.options:
            return build(source_of(case.variant), **(self.options[case.variant] | {"target": case.options["target"]}))
        return self.tables[case.variant]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    return Clean(tmp_path_factory.mktemp("clean"))


def spoiled(case: Case, clean: Clean, folder: Path) -> dict[str, Any]:
    """The options of the case, whose files are in the folder."""
    home = clean.files(case.variant)
    shutil.copytree(home, folder)

    def here(value: Any) -> Any:
        if isinstance(value, list):
            return [here(one) for one in value]
        return folder / value.relative_to(home) if isinstance(value, Path) else value

    options = {name: here(value) for name, value in clean.options[case.variant].items()}
    return options | (case.change(folder / case.name) or {}) | dict(case.options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_a_file_that_cannot_be_used_is_refused_by_name_in_one_paragraph(
    name: str, clean: Clean, tmp_path: Path
) -> None:
    case = CASES[name]
    options = spoiled(case, clean, tmp_path / "files")

    with pytest.raises((DataError, SpecError)) as refusal:
        build(source_of(case.variant), **options)

    message = str(refusal.value)
    assert re.search(case.refused, message), message
    assert "files/" in message, f"which file? {message}"
    assert message.isprintable(), "one paragraph without what a terminal would take for commands"
    assert len(message) < 1_200


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.refused])
def test_no_gene_of_the_table_is_another_one_and_what_was_done_is_counted(
    name: str, clean: Clean, tmp_path: Path
) -> None:
    case = CASES[name]
    table = build(source_of(case.variant), **spoiled(case, clean, tmp_path / "files"))

    check_counted(case, table)
    check_genes(case, clean.table(case), table)
    genes = Genes.open(write_genes(table, tmp_path / "out"))
    assert genes.gene_ids.tolist() == list(table.gene_ids)
    for target in genes.targets:
        np.testing.assert_array_equal(genes.target(target), table.targets[target].values)


def check_counted(case: Case, table: GeneTable) -> None:
    found = table.notes["findings"]
    reasons = {reason: one for kind in found.values() for reason, one in kind.items()}
    for pattern, befallen in case.counted.items():
        fitting = [reason for reason in reasons if re.search(pattern, reason)]
        assert fitting, f"nothing was counted as {pattern!r}, but {reasons}"
        examples = [one for reason in fitting for one in reasons[reason]["examples"]]
        assert sum(reasons[reason]["count"] for reason in fitting) == len(befallen), reasons
        assert sorted(examples) == sorted(befallen) or (len(befallen) > EXAMPLES and set(examples) < set(befallen)), (
            reasons
        )
    unexpected = [reason for reason in reasons if not any(re.search(one, reason) for one in case.counted)]
    assert not unexpected, reasons


def check_genes(case: Case, before: GeneTable, now: GeneTable) -> None:
    """Every gene has the values that it had, and those that are no more are counted."""
    rows = {gene: row for row, gene in enumerate(now.gene_ids)}
    places = {gene: rows.pop(case.renamed.get(gene, gene), None) for gene in before.gene_ids}
    assert not rows, "genes that nobody planted"
    notes = str(now.notes["findings"]) + str(now.notes.get("translation"))
    for old, gene in enumerate(before.gene_ids):
        new = places[gene]
        if new is None:
            assert case.renamed.get(gene, gene) in str(now.notes["findings"]), f"{gene} is gone, and nobody says so"
        elif gene in case.reported:
            assert gene in notes or gene in chain(*case.counted.values()), (
                f"{gene} may have changed, and nobody says so"
            )
        else:
            was, is_now = values(before, old), values(now, new)
            for name, value in was.items():
                assert agree(value, is_now[name], gene in case.lost), f"{name} of {gene}: {value} is {is_now[name]}"
    kept = [(old, places[gene]) for old, gene in enumerate(before.gene_ids) if places[gene] is not None]
    was, is_now = (
        family[[pair[side] for pair in kept]] for side, family in enumerate((before.family_ids, now.family_ids))
    )
    if not case.reported:
        assert np.array_equal(was[:, None] == was, is_now[:, None] == is_now), "families"


def agree(was: Any, now: Any, may_be_lost: bool) -> bool:
    """Equal; or, where values may be lost, unknown: N, NaN, a fraction of G+C without what is N."""
    if not may_be_lost:
        return bool(np.array_equal(was, now, equal_nan=isinstance(was, np.ndarray) and was.dtype.kind == "f"))
    if isinstance(was, str):
        return len(was) == len(now) and all(new in (old, "N") for old, new in zip(was, now, strict=True))
    if was.dtype.kind == "f":
        return bool(np.all(np.isnan(now) | (abs(was - now) < 0.02)))
    return bool(np.all((now == was) | (now == 0)))


def values(table: GeneTable, row: int) -> dict[str, Any]:
    """What the table has of a gene, but for its names."""
    levels = np.array([target.values[row] for target in table.targets.values()])
    texts = {"CDS": table.cds[row], "protein": table.proteins[row], "strand": table.strands[row]}
    place = np.array([table.starts[row], table.ends[row]])
    return {**texts, "place": place, "levels": levels, "window": table.windows[row], "features": table.features[row]}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    make, said = ARCHIVES[name]
    home = tmp_path / "home"
    home.mkdir()
    make(home / "archive")

    with pytest.raises(DataError, match=said) as refusal:
        read_members(home / "archive", ["a"])

    assert str(home / "archive") in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert [path.name for path in tmp_path.rglob("*")] in (["home", "archive"], ["home"])


def test_a_pipe_which_can_be_read_once_only_is_refused_as_such(clean: Clean, tmp_path: Path) -> None:
    home = clean.files("gff3")
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as file:
        file.write((home / FA).read_bytes())
        file.close()
        with pytest.raises(DataError, match=rf"/dev/fd/{reader}.*(pipe|plain file|only once)"):
            build("genome", **(clean.options["gff3"] | {"genome": [Path(f"/dev/fd/{reader}")]}))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("name", [FA, GFF, TSV])
def test_a_file_that_may_not_be_read_is_refused(name: str, clean: Clean, tmp_path: Path) -> None:
    options = spoiled(same(name, lambda path: path.chmod(0)), clean, tmp_path / "files")
    with pytest.raises(DataError, match=f"{name}.*Permission denied"):
        build("genome", **options)
