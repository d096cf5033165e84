"""What a publication printed of a study that is being repeated: its claims, and what they would look like here."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from raystudy.study.model import Section

Measure = Literal["pearson_r2", "epoch_seconds", "parameters", "train_loss"]
Expected = Literal["lower", "higher", "similar", "not higher", "highest"]


class ClaimSpec(Section):
    """One claim of the publication, as differences between one arm and the arm that it is compared with."""

    says: str
    """In the publication's words, or close to them."""
    arm: str
    whole: bool = False
    """Is it about the end of a whole training, which a reduced study does not reach?"""
    expect: dict[Measure, Expected] = Field(min_length=1)
    """What the claim means for each measure of that arm against its comparator; ``highest`` is against all arms."""


class PublishedSpec(Section):
    """A published table that the study's arms repeat, row by row."""

    title: str
    measured: str
    """How the printed values came about, where that keeps them from being compared with ours."""
    similar: float = Field(0.005, gt=0)
    """Differences of R2 or loss up to here count as none."""
    similar_share: float = Field(0.05, gt=0)
    """Differences of times and sizes up to this share of the comparator's count as none."""
    claims: tuple[ClaimSpec, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for claim in self.claims:
            for measure, expected in claim.expect.items():
                if expected == "highest" and measure != "pearson_r2":
                    raise ValueError(f"`highest` is for pearson_r2, but {claim.arm!r} asks it of {measure}")
        return self
