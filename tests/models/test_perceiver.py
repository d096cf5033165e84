from __future__ import annotations

import math

import pytest
import torch

from raystudy.models.perceiver import PerceiverBranch, sinusoid


def test_the_position_table_is_that_of_vaswani() -> None:
    table = sinusoid(50, 8)

    assert table.shape == (50, 8)
    for position in (0, 1, 49):
        for pair in range(4):
            angle = position / 10_000 ** (2 * pair / 8)
            assert float(table[position, 2 * pair]) == pytest.approx(math.sin(angle), abs=1e-5)
            assert float(table[position, 2 * pair + 1]) == pytest.approx(math.cos(angle), abs=1e-5)


def test_latents_and_embedding_start_near_a_standard_normal_and_positions_at_the_sinusoid() -> None:
    torch.manual_seed(0)
    branch = PerceiverBranch(23, 100, 32, 64, 64, dropout=0.2, backend="sdpa")

    assert float(branch.latents_ND.detach().std()) == pytest.approx(1, abs=0.1)
    assert float(branch.embedding.weight.detach().std()) == pytest.approx(1, abs=0.1)
    assert torch.equal(branch.positions_LE, sinusoid(100, 32))
    assert branch.positions_LE.requires_grad
    assert branch.latents_ND.requires_grad


def test_the_order_of_residues_matters() -> None:
    torch.manual_seed(0)
    branch = PerceiverBranch(23, 100, 8, 4, 16, dropout=0.0, backend="sdpa").eval()
    residues, positions = torch.tensor([3, 9, 4]), torch.arange(3)

    with torch.no_grad():
        forwards, backwards = branch(residues, positions, [3]), branch(residues.flip(0), positions, [3])
        both_reversed = branch(residues.flip(0), positions.flip(0), [3])

    assert (forwards - backwards).abs().max() > 1e-3
    torch.testing.assert_close(both_reversed, forwards, atol=1e-5, rtol=0)
