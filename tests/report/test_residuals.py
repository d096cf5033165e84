from __future__ import annotations

import re

import pytest

from raystudy.report.residuals import largest_residuals, predicted_measured
from raystudy.tracking.predictions import predictions_path


def test_the_largest_residuals_are_those_of_the_test_genes_the_worst_first(fake_study):
    study = fake_study().read()
    found = largest_residuals(study, 20)
    sizes = [abs(one.residual) for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert {one.gene_id for one in found} == {f"Y{number:03d}W" for number in range(40, 60)}
    assert {one.part for one in found} == {"test"}
    assert found[0].residual == pytest.approx(found[0].measured - found[0].predicted)
    assert largest_residuals(study, 3) == found[:3]


def test_two_targets_are_told_apart(fake_study):
    assert {one.target for one in largest_residuals(fake_study(targets=("mrna", "protein")).read(), 40)} == {
        "mrna",
        "protein",
    }


def test_validation_genes_stand_in_while_the_test_genes_are_sealed(fake_study):
    study = fake_study().read()
    study.events = [line for line in study.events if line["event"] != "test_opened"]
    assert {one.part for one in largest_residuals(study)} == {"valid"}


def test_without_predictions_there_are_none(fake_study):
    records = fake_study()
    predictions_path(records.folder, "t0001-r0").unlink()
    assert largest_residuals(records.read()) == []
    assert predicted_measured(records.read()) is None


def test_the_worst_gene_is_named_in_the_figure_and_few_others_are(fake_study):
    study = fake_study().read()
    named = re.findall(r">(Y\d{3}W)<", predicted_measured(study))
    assert largest_residuals(study)[0].gene_id in named
    assert len(named) <= 6
    assert set(named) <= {one.gene_id for one in largest_residuals(study)}
