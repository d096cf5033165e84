"""The two-branch Perceiver as one would write it first: what ``benchmarks.step`` and ``benchmarks.epoch`` compare with.

The same function as `raystudy.models.build.build` gives, in the manner of published code: one-hot floats with channels
first, `nn.Conv1d`, `nn.BatchNorm1d`, every protein padded to the longest allowed and masked, attention written out,
and a `DataLoader` that makes all of that gene by gene. Nothing in it is slow on purpose: there is no loop over
positions, genes or heads.

Shapes: B batch, L positions, S one-hot symbols, C channels, E token width, N latents, D their width, Q query width,
M keys, H half-life features, h heads of d, K targets.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from raystudy.data.batches import StudyData, num_half_life
from raystudy.data.encode import NUM_SYMBOLS, kmer_tokens
from raystudy.data.splits import Rows
from raystudy.models.perceiver import sinusoid
from raystudy.study.model import LATENT_HEADS, ModelSpec, Tokens

CROSS_HEAD_DIM = 64
STEM_KERNEL, TOWER_KERNEL = 15, 5


def attention(q_BhNd: Tensor, k_BhMd: Tensor, v_BhMd: Tensor, masked_BM: Tensor | None, dropout: nn.Module) -> Tensor:
    """Softmax attention with the whole matrix of weights, [B, h, N, d]; ``masked_BM`` is True where nothing stands."""
    scores_BhNM = torch.einsum("bhnd,bhmd->bhnm", q_BhNd, k_BhMd) * q_BhNd.shape[-1] ** -0.5
    if masked_BM is not None:
        scores_BhNM = scores_BhNM.masked_fill(masked_BM[:, None, None, :], -torch.finfo(scores_BhNM.dtype).max)
    return torch.einsum("bhnm,bhmd->bhnd", dropout(scores_BhNM.softmax(dim=-1)), v_BhMd)


def split_heads(x_BNC: Tensor, num_heads: int) -> Tensor:
    return x_BNC.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class CrossAttention(nn.Module):
    """One head of 64, LayerNorm on both sides."""

    def __init__(self, query_dim: int, input_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(query_dim)
        self.norm_input = nn.LayerNorm(input_dim)
        self.to_q = nn.Linear(query_dim, CROSS_HEAD_DIM, bias=False)
        self.to_kv = nn.Linear(input_dim, 2 * CROSS_HEAD_DIM, bias=False)
        self.to_out = nn.Linear(CROSS_HEAD_DIM, query_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries_BND: Tensor, inputs_BME: Tensor, masked_BM: Tensor | None = None) -> Tensor:
        q = self.to_q(self.norm_query(queries_BND))
        k, v = self.to_kv(self.norm_input(inputs_BME)).chunk(2, dim=-1)
        return self.to_out(attention(q[:, None], k[:, None], v[:, None], masked_BM, self.dropout)[:, 0])


class SelfAttention(nn.Module):
    """Eight heads among the latents, LayerNorm before."""

    def __init__(self, dim: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        normed_BND = self.norm(x_BND)
        k, v = self.to_kv(normed_BND).chunk(2, dim=-1)
        q, k, v = (split_heads(part, LATENT_HEADS) for part in (self.to_q(normed_BND), k, v))
        return self.to_out(attention(q, k, v, None, self.dropout).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """GEGLU with an inner width of twice the outer, LayerNorm before."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.contract = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        value, gate = self.expand(self.norm(x_BND)).chunk(2, dim=-1)
        return self.dropout(self.contract(value * F.gelu(gate)))


class LatentBlock(nn.Module):
    def __init__(self, dim: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(dim, inner, dropout)
        self.feed_forward = FeedForward(dim, dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.attention(x_BND)
        return x_BND + self.feed_forward(x_BND)


class Perceiver(nn.Module):
    """Padded tokens [B, L], of which those that are 0 are masked, to latents [B, N, D]."""

    def __init__(self, model: ModelSpec, reads: Tokens) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_SYMBOLS[reads], model.token_dim)
        self.embedding_dropout = nn.Dropout(model.dropout)
        self.positions_LE = nn.Parameter(sinusoid(model.position_rows or model.perceiver_length, model.token_dim))
        self.latents_ND = nn.Parameter(torch.randn(model.num_latents, model.latent_dim))
        self.joins_half_life = model.half_life_joins_latents
        self.width = model.latent_dim + (num_half_life(model) if self.joins_half_life else 0)
        self.cross = CrossAttention(self.width, model.token_dim, model.dropout)
        self.cross_feed_forward = FeedForward(self.width, model.dropout)
        self.blocks = nn.Sequential(
            *(LatentBlock(self.width, model.latent_dim, model.dropout) for _ in range(model.depth))
        )

    def forward(self, tokens_BL: Tensor, half_life_BH: Tensor) -> Tensor:
        tokens_BLE = self.embedding_dropout(self.embedding(tokens_BL)) + self.positions_LE[: tokens_BL.shape[1]]
        latents_BND = self.latents_ND.expand(len(tokens_BL), -1, -1)
        if self.joins_half_life:
            joined = half_life_BH[:, None].expand(-1, latents_BND.shape[1], -1)
            latents_BND = torch.cat([latents_BND, joined], dim=-1)
        latents_BND = latents_BND + self.cross(latents_BND, tokens_BLE, tokens_BL == 0)
        return self.blocks(latents_BND + self.cross_feed_forward(latents_BND))


class Stem(nn.Module):
    """First convolution, over one-hot symbols or over their dense embedding."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        channels = num_channels(model)
        self.embedding_SE = nn.Embedding(channels, model.embedding_dim) if model.encoder == "embedding" else None
        channels = channels if self.embedding_SE is None else model.embedding_dim
        self.convolution = nn.Conv1d(channels, model.queries_dim, STEM_KERNEL, padding="same")

    def forward(self, onehot_BSL: Tensor) -> Tensor:
        if self.embedding_SE is not None:
            return self.convolution(torch.einsum("bsl,se->bel", onehot_BSL, self.embedding_SE.weight))
        return self.convolution(onehot_BSL)


class NormActivateConvolve(nn.Module):
    def __init__(self, channels: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.convolution = nn.Conv1d(channels, outputs, kernel, padding="same")

    def forward(self, x_BCL: Tensor) -> Tensor:
        x_BCL = self.norm(x_BCL)
        return self.convolution(x_BCL * torch.sigmoid(1.702 * x_BCL))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class AttentionPool(nn.Module):
    def __init__(self, channels: int, pool_size: int) -> None:
        super().__init__()
        self.mix_CC = nn.Parameter(torch.eye(channels))
        self.pool_size = pool_size

    def forward(self, x_BCL: Tensor) -> Tensor:
        num_windows = x_BCL.shape[2] // self.pool_size
        windows = x_BCL[:, :, : num_windows * self.pool_size].unflatten(2, (num_windows, self.pool_size))
        weights = torch.einsum("bcwp,cd->bdwp", windows, self.mix_CC).softmax(dim=-1)
        return (windows * weights).sum(dim=-1)


class ConvolutionBranch(nn.Module):
    """One-hot symbols [B, S, L] to one query per gene [B, Q]."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        Q, P = model.queries_dim, model.pool_size
        widths = [Q, 2 * round(Q / math.sqrt(2) / 2), Q // 2]
        blocks: list[nn.Module] = [Stem(model), Residual(NormActivateConvolve(Q, Q, 1)), AttentionPool(Q, P)]
        for channels, outputs in pairwise(widths):
            blocks += [
                NormActivateConvolve(channels, outputs, TOWER_KERNEL),
                Residual(NormActivateConvolve(outputs, outputs, 1)),
                AttentionPool(outputs, P // 2),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.joins_half_life = model.half_life_joins_query
        num_flat = model.convolution_length // P // (P // 2) // (P // 2) * widths[-1]
        self.to_query = nn.Linear(num_flat + (num_half_life(model) if self.joins_half_life else 0), Q)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, onehot_BSL: Tensor, half_life_BH: Tensor) -> Tensor:
        flat = self.blocks(onehot_BSL).flatten(1)
        if self.joins_half_life:
            flat = torch.cat([flat, half_life_BH], dim=1)
        return self.dropout(F.relu(self.to_query(flat)))


class NaivePerceiver(nn.Module):
    """What `raystudy.models.build.build(model, num_targets)` computes, of the batches that `loader` makes; [B, K].

    ValueError for ``family: xpresso``, which is no Perceiver.
    """

    def __init__(self, model: ModelSpec, num_targets: int = 1) -> None:
        super().__init__()
        if model.perceiver_reads is None:
            raise ValueError(
                f"NaivePerceiver is written for families with a Perceiver branch, but got `family: {model.family}`; "
                "choose dna, protein or dna_protein"
            )
        Q = model.queries_dim
        self.perceiver = Perceiver(model, model.perceiver_reads)
        self.convolution = ConvolutionBranch(model)
        self.half_life: nn.Module = nn.Identity()
        if model.half_life == "mlp":
            H = num_half_life(model)
            self.half_life = nn.Sequential(nn.Linear(H, H), nn.GELU(), nn.Linear(H, H))
        width = self.perceiver.width
        self.head = CrossAttention(Q, width, dropout=0.0)
        self.summary = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, Q)) if model.latent_summary else None
        self.output = nn.Linear(2 * Q if model.latent_summary else Q, num_targets)

    def forward(self, onehot_BSL: Tensor, tokens_BL: Tensor, half_life_BH: Tensor) -> Tensor:
        half_life_BH = self.half_life(half_life_BH)
        latents_BND = self.perceiver(tokens_BL, half_life_BH)
        query_B1Q = self.convolution(onehot_BSL, half_life_BH)[:, None]
        answer_BQ = (query_B1Q + self.head(query_B1Q, latents_BND))[:, 0]
        if self.summary is not None:
            answer_BQ = torch.cat([answer_BQ, self.summary(latents_BND.mean(dim=1))], dim=1)
        return self.output(answer_BQ)


def naive_name(name: str) -> str:
    """What a parameter or buffer of raystudy's network is called here: its convolutions are `nn.Conv1d`."""
    return name.replace(".weight_OCK", ".weight").replace(".bias_O", ".bias")


def copy_weights(network: nn.Module, naive: NaivePerceiver) -> None:
    """Give ``naive`` the parameters and statistics of raystudy's network of the same configuration.

    RuntimeError, naming them, where either has one that the other lacks.
    """
    naive.load_state_dict({naive_name(name): tensor for name, tensor in network.state_dict().items()})


def num_channels(model: ModelSpec) -> int:
    """S: an N has no channel in a one-hot window, but it has a vector in a dense embedding; a protein's pad has one."""
    blank = model.convolution_reads == "base" and model.encoder != "embedding"
    return NUM_SYMBOLS[model.convolution_reads] - blank


class GeneDataset(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """One-hot symbols [S, L], padded tokens [L], half-life features [H] and labels [K] of one gene after the other."""

    def __init__(self, data: StudyData, rows: Rows) -> None:
        self.data = data
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        row, inputs, model = int(self.rows[number]), self.data.inputs, self.data.inputs.model
        protein = torch.from_numpy(inputs.proteins[inputs.protein_offsets[row] : inputs.protein_offsets[row + 1]])
        padded_L = F.pad(protein.long(), (0, model.max_protein - len(protein)))
        window_L = torch.from_numpy(inputs.windows_NL[row].copy()).long()
        sequence_L = window_L if model.convolution_reads == "base" else padded_L
        onehot_LS = F.one_hot(sequence_L, NUM_SYMBOLS[model.convolution_reads])[:, -num_channels(model) :]
        if model.perceiver_reads == "kmer":
            tokens_L = torch.from_numpy(kmer_tokens(inputs.windows_NL[row : row + 1])[0]).long()
        else:
            tokens_L = window_L if model.perceiver_reads == "base" else padded_L
        half_life_H, labels_K = (torch.from_numpy(values[row]) for values in (inputs.half_life_NH, self.data.labels))
        return onehot_LS.T.float(), tokens_L, half_life_H, labels_K


def loader(
    data: StudyData, rows: Rows, batch_size: int, num_workers: int = 0, shuffle: bool = False
) -> DataLoader[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Batches of those genes in the order given, or in a random one: what the network reads, and last the labels."""
    return DataLoader(GeneDataset(data, rows), batch_size, shuffle=shuffle, num_workers=num_workers)
