"""The network of docs and papers written once more, as plainly as possible: float64 numpy, one gene at a time.

It shares nothing with raystudy.models but the names of the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

Array = np.ndarray[Any, np.dtype[np.float64]]
Weights = dict[str, Array]


def linear(w: Weights, name: str, x: Array) -> Array:
    y = np.einsum("...i,oi->...o", x, w[f"{name}.weight"])
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def layer_norm(w: Weights, name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def attention(q: Array, k: Array, v: Array) -> Array:
    return np.einsum("nm,md->nd", softmax(np.einsum("nd,md->nm", q, k) / np.sqrt(q.shape[1]), axis=1), v)


def cross_attention(w: Weights, name: str, queries: Array, inputs: Array) -> Array:
    q = linear(w, f"{name}.to_q", layer_norm(w, f"{name}.norm_query", queries))
    kv = linear(w, f"{name}.to_kv", layer_norm(w, f"{name}.norm_input", inputs))
    half = kv.shape[1] // 2
    return linear(w, f"{name}.to_out", attention(q, kv[:, :half], kv[:, half:]))


def self_attention(w: Weights, name: str, x: Array, num_heads: int = 8) -> Array:
    normed = layer_norm(w, f"{name}.norm", x)
    q, kv = linear(w, f"{name}.to_q", normed), linear(w, f"{name}.to_kv", normed)
    k, v = kv[:, : kv.shape[1] // 2], kv[:, kv.shape[1] // 2 :]
    d = q.shape[1] // num_heads
    heads = [slice(h * d, (h + 1) * d) for h in range(num_heads)]
    return linear(w, f"{name}.to_out", np.hstack([attention(q[:, h], k[:, h], v[:, h]) for h in heads]))


def feed_forward(w: Weights, name: str, x: Array) -> Array:
    wide = linear(w, f"{name}.expand", layer_norm(w, f"{name}.norm", x))
    value, gate = wide[:, : wide.shape[1] // 2], wide[:, wide.shape[1] // 2 :]
    return linear(w, f"{name}.contract", value * gate * 0.5 * (1 + erf(gate / np.sqrt(2))))


def perceiver(w: Weights, residues: list[int]) -> Array:
    tokens = w["perceiver.embedding.weight"][residues] + w["perceiver.positions_LE"][: len(residues)]
    x = w["perceiver.latents_ND"]
    x = x + cross_attention(w, "perceiver.cross", x, tokens)
    x = x + feed_forward(w, "perceiver.cross_feed_forward", x)
    x = x + self_attention(w, "perceiver.attention", x)
    return x + feed_forward(w, "perceiver.feed_forward", x)


def convolution(x: Array, weight_OCK: Array, bias: Array) -> Array:
    """Channels first [C, L], zeros beyond both ends."""
    kernel, length = weight_OCK.shape[2], x.shape[1]
    before = (kernel - 1) // 2
    y = np.zeros((weight_OCK.shape[0], length)) + bias[:, None]
    for position in range(length):
        for k in range(kernel):
            if 0 <= position + k - before < length:
                y[:, position] += weight_OCK[:, :, k] @ x[:, position + k - before]
    return y


def norm_activate_convolve(w: Weights, name: str, x: Array) -> Array:
    """BatchNorm with its running statistics, x * sigmoid(1.702 x), convolution; channels first."""
    norm = f"{name}.norm"
    scaled = (x - w[f"{norm}.running_mean"][:, None]) / np.sqrt(w[f"{norm}.running_var"][:, None] + 1e-5)
    y = scaled * w[f"{norm}.weight"][:, None] + w[f"{norm}.bias"][:, None]
    y = y / (1 + np.exp(-1.702 * y))
    return convolution(y, w[f"{name}.convolution.weight_OCK"], w[f"{name}.convolution.bias_O"])


def attention_pool(x: Array, mix: Array, size: int) -> Array:
    """Channels first; for each window and channel a loop over nothing but positions."""
    logits = mix.T @ x
    windows = [slice(start, start + size) for start in range(0, x.shape[1] - size + 1, size)]
    pooled = np.empty((x.shape[0], len(windows)))
    for number, window in enumerate(windows):
        for channel in range(x.shape[0]):
            pooled[channel, number] = softmax(logits[channel, window], axis=0) @ x[channel, window]
    return pooled


def stem(w: Weights, tokens: list[int]) -> Array:
    name = "convolution.blocks.0"
    if f"{name}.embedding_SE.weight" in w:
        x = w[f"{name}.embedding_SE.weight"][tokens].T
    else:
        x = np.array([[float(token == base) for token in tokens] for base in (1, 2, 3, 4)])
    return convolution(x, w[f"{name}.convolution.weight_OCK"], w[f"{name}.convolution.bias_O"])


def query(w: Weights, tokens: list[int], half_life: Array, pool_size: int) -> Array:
    blocks = "convolution.blocks"
    x = stem(w, tokens)
    x = x + norm_activate_convolve(w, f"{blocks}.1.inner", x)
    x = attention_pool(x, w[f"{blocks}.2.mix_CC"], pool_size)
    for first in (3, 6):
        x = norm_activate_convolve(w, f"{blocks}.{first}", x)
        x = x + norm_activate_convolve(w, f"{blocks}.{first + 1}.inner", x)
        x = attention_pool(x, w[f"{blocks}.{first + 2}.mix_CC"], pool_size // 2)
    if "half_life.0.weight" in w:
        hidden = linear(w, "half_life.0", half_life)
        half_life = linear(w, "half_life.2", hidden * 0.5 * (1 + erf(hidden / np.sqrt(2))))
    return np.maximum(linear(w, "convolution.to_query", np.concatenate([*x, half_life])), 0)


def predict(w: Weights, tokens: list[int], half_life: Array, residues: list[int], pool_size: int) -> float:
    """One gene's prediction in evaluation mode."""
    latents = perceiver(w, residues)
    q = query(w, tokens, half_life, pool_size)[None]
    answer = (q + cross_attention(w, "head", q, latents))[0]
    if "summary.0.weight" in w:
        answer = np.concatenate([answer, linear(w, "summary.1", layer_norm(w, "summary.0", latents.mean(axis=0)))])
    return float(linear(w, "output", answer)[0])
