from __future__ import annotations

import math

import pytest
import torch

from raystudy.models.perceiver import PerceiverBranch, sinusoid
from raystudy.study.model import ModelSpec


def test_the_position_table_is_that_of_vaswani() -> None:
    table = sinusoid(50, 8)

    assert table.shape == (50, 8)
    for position in (0, 1, 49):
        for pair in range(4):
            angle = position / 10_000 ** (2 * pair / 8)
            assert float(table[position, 2 * pair]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(table[position, 2 * pair + 1]) == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize(("position_rows", "rows"), [(None, 500), (800, 800)])
def test_latents_and_embedding_start_near_a_standard_normal_and_positions_at_the_sinusoid(
    position_rows: int | None, rows: int
) -> None:
    torch.manual_seed(0)
    branch = PerceiverBranch(ModelSpec(max_protein=500, position_rows=position_rows), "residue")

    for start in (branch.latents_ND, branch.embedding.weight):
        assert start.requires_grad
        assert float(start.detach().mean()) == pytest.approx(0, abs=0.1)
        assert float(start.detach().std()) == pytest.approx(1, abs=0.1)
    assert torch.equal(branch.positions_LE, sinusoid(rows, 32))
    assert branch.positions_LE.requires_grad
    assert branch.embedding.padding_idx is None, "the pad's vector is learned, but masked"


def test_a_token_is_read_at_its_position_wherever_it_stands_in_the_batch() -> None:
    torch.manual_seed(0)
    branch = PerceiverBranch(ModelSpec(num_latents=4, latent_dim=16, token_dim=8), "residue").eval()
    residues, positions, half_life = torch.tensor([3, 9, 4]), torch.arange(3), torch.zeros(1, 8)

    with torch.no_grad():
        forwards = branch(residues, positions, [3], half_life)
        backwards = branch(residues.flip(0), positions, [3], half_life)
        both_reversed = branch(residues.flip(0), positions.flip(0), [3], half_life)

    assert (forwards - backwards).abs().max() > 1e-3
    torch.testing.assert_close(both_reversed, forwards, atol=1e-5, rtol=0)
