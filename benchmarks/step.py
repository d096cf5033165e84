"""How fast a step of training is, and how much memory it takes: ``python -m benchmarks.step``.

raystudy's network, in fp32 and under bf16 autocast, takes turns with `benchmarks.naive.NaivePerceiver`, the same
function as one would write it first, eager and in fp32. Both have the same weights and the same genes: random
sequences with proteins as long as yeast's. A step is forward, mean squared error, backward and the optimizer; making
the batch is not in it (`benchmarks.epoch` measures that). Evaluation is forward only, at the training loop's batch.

With ``--json``, one flat object. ``fp32_ratio``, ``bf16_ratio``, ``eval_ratio`` (in the precision that `auto` is here)
and ``eval_fp32_ratio`` say how many times as fast as the naive network ours is, as the median over rounds, with
``_low`` and ``_high`` of them: more is better. ``memory_ratio`` and ``memory_ratio_bf16`` are our peak memory as a
share of the naive one's: less is better. What is reached of the machine is told in useful FLOP
(`measuring.useful_flops`), of ours and of the naive one alike.

On a GPU fp32 is without TF32 in both, as in the training loop.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.measuring import (
    Figures,
    Peaks,
    Ratio,
    Task,
    alternate,
    counted_flops,
    least_bytes,
    made_genes,
    measure_peaks,
    peak_bytes,
    useful_flops,
)
from benchmarks.naive import NaivePerceiver, copy_weights, loader
from raystudy.data.batches import StudyData
from raystudy.models.backends import choose_backends
from raystudy.models.build import build
from raystudy.study.model import PRESETS, ModelSpec, TrainingSpec
from raystudy.training.loop import DTYPES, EVALUATION_BATCH, full_precision, resolve_precision
from raystudy.training.optimisation import ADAM_BETAS, make_optimizer

NAIVE = "naive"
PRECISIONS = ("fp32", "bf16")
SMALL: dict[str, Any] = {
    "window_bp": (300, 200), "max_protein": 300, "num_latents": 8, "latent_dim": 16, "queries_dim": 16
}  # fmt: skip
SMALL_PEAKS = 256
"""Width of the matrices from which the machine's peaks are measured with ``--small``."""


@dataclass(frozen=True)
class Setting:
    """What is computed on what; it can be sent to another process."""

    model: ModelSpec
    targets: tuple[str, ...]
    batch: int
    device_name: str
    lengths: tuple[int, ...] | None = None
    """Of the proteins; None is as yeast's are."""

    @classmethod
    def of(cls, preset: str, batch: int, device_name: str, small: bool = False) -> Setting:
        """A published network by its name; ``small`` is one of its kind that takes no time."""
        model = ModelSpec(**{"preset": preset, **(SMALL if small else {})})
        return cls(model, PRESETS[preset].targets, batch, device_name)

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_name)

    def genes(self) -> StudyData:
        return made_genes(self.model, self.batch, targets=self.targets, lengths=self.lengths)

    def network(self) -> nn.Module:
        """The same weights each time."""
        torch.manual_seed(0)
        return build(self.model, len(self.targets)).to(self.device)


def ours(setting: Setting, precision: str, evaluating: bool = False) -> Task:
    """A step, or an evaluation of a batch, as the training loop makes it."""
    network, data, training = setting.network(), setting.genes(), TrainingSpec()
    choose_backends(network, training.attention, setting.device, DTYPES[precision])
    rows = data.inputs.by_length(data.split.train)
    inputs, labels_BK = data.inputs.batch(rows, setting.device), data.labels_of(rows, setting.device)

    def predict() -> Tensor:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=precision == "bf16"):
            predicted_BK: Tensor = network(inputs)
        return predicted_BK.float()

    if evaluating:
        return _evaluation(network, predict)
    return _step(network, predict, labels_BK, make_optimizer(network, training))


def naive(setting: Setting, evaluating: bool = False) -> Task:
    """The same of the naive network, with PyTorch's optimizer as it is unless told otherwise."""
    data, training = setting.genes(), TrainingSpec()
    network = NaivePerceiver(setting.model, len(data.targets)).to(setting.device)
    copy_weights(setting.network(), network)
    (batch,) = loader(data, data.split.train, setting.batch)
    *reads, labels_BK = (tensor.to(setting.device) for tensor in batch)

    def predict() -> Tensor:
        predicted_BK: Tensor = network(*reads)
        return predicted_BK

    if evaluating:
        return _evaluation(network, predict)
    parameters, decay = network.parameters(), training.weight_decay
    optimizer = torch.optim.AdamW(parameters, training.learning_rate, ADAM_BETAS, weight_decay=decay)
    return _step(network, predict, labels_BK, optimizer)


def _step(
    network: nn.Module, predict: Callable[[], Tensor], labels_BK: Tensor, optimizer: torch.optim.Optimizer
) -> Task:
    network.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(F.mse_loss(predict(), labels_BK))
        optimizer.step()

    return step


def _evaluation(network: nn.Module, predict: Callable[[], Tensor]) -> Task:
    network.eval()
    return torch.no_grad()(predict)


def task_of(setting: Setting, name: str, evaluating: bool = False) -> Task:
    """By the name of what computes: ``naive``, or one of our precisions."""
    return naive(setting, evaluating) if name == NAIVE else ours(setting, name, evaluating)


def warmed(setting: Setting, name: str) -> Task:
    """A step of which nothing but itself is done for the first time in this process, a small one having been made."""
    small = ModelSpec(**{**setting.model.model_dump(), **SMALL})
    task_of(replace(setting, model=small, batch=2), name)()
    return task_of(setting, name)


def measure(setting: Setting, rounds: int, peak_size: int | None = None) -> tuple[Figures, Peaks]:
    """All figures, and what the machine can do.

    Memory comes first, before this process has much of its own. ``peak_size`` is `measure_peaks`'s.
    """
    device, names = setting.device, (NAIVE, *PRECISIONS)
    held = {name: peak_bytes(warmed, (setting, name), device) for name in names}
    figures: Figures = {
        "memory_ratio": held["fp32"] / held[NAIVE],
        "memory_ratio_bf16": held["bf16"] / held[NAIVE],
        **{f"{name}_memory_mb": value / 1e6 for name, value in held.items()},
    }
    peaks = measure_peaks(device, peak_size)
    steps = {name: task_of(setting, name) for name in names}
    counted = counted_flops(steps[NAIVE])
    seconds = alternate(steps, rounds, device)
    del steps
    for name in PRECISIONS:
        figures |= Ratio.of(seconds[NAIVE], seconds[name]).figures(f"{name}_ratio")
    auto = resolve_precision("auto", device)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    figures |= {f"{name}_seconds": value for name, value in medians.items()}
    figures |= {f"{name}_genes_per_second": setting.batch / value for name, value in medians.items()}
    figures |= {"genes_per_second": setting.batch / medians[auto], "auto_is_bf16": float(auto == "bf16")}
    figures |= _reached(setting, medians, peaks, counted)
    return figures | _evaluated(setting, rounds, auto), peaks


def _reached(setting: Setting, seconds: dict[str, float], peaks: Peaks, counted: int) -> Figures:
    lengths = setting.genes().inputs.protein_lengths.tolist()
    useful = useful_flops(setting.model, lengths, training=True)
    figures: Figures = {
        "useful_gflop": useful / 1e9,
        "naive_counted_gflop": counted / 1e9,
        "peak_gflops_fp32": peaks.fp32_gflops,
        "peak_gflops_bf16": peaks.bf16_gflops,
        "peak_copy_gbps": peaks.copy_gbps,
        "reached_gflops_naive": useful / seconds[NAIVE] / 1e9,
    }
    for name in PRECISIONS:
        reached, moved = useful / seconds[name] / 1e9, least_bytes(setting.model, setting.batch, DTYPES[name].itemsize)
        figures |= {
            f"reached_gflops_{name}": reached,
            f"reached_share_of_peak_{name}": reached / peaks.gflops(name),
            f"least_gbps_{name}": moved / seconds[name] / 1e9,
            f"least_share_of_copy_{name}": moved / seconds[name] / 1e9 / peaks.copy_gbps,
        }
    return figures


def _evaluated(setting: Setting, rounds: int, auto: str) -> Figures:
    setting = replace(setting, batch=EVALUATION_BATCH)
    seconds = alternate(
        {name: task_of(setting, name, evaluating=True) for name in (NAIVE, *PRECISIONS)}, rounds, setting.device
    )
    rates = {name: setting.batch / statistics.median(times) for name, times in seconds.items()}
    return {
        **Ratio.of(seconds[NAIVE], seconds[auto]).figures("eval_ratio"),
        **Ratio.of(seconds[NAIVE], seconds["fp32"]).figures("eval_fp32_ratio"),
        **{f"{name}_eval_genes_per_second": rate for name, rate in rates.items()},
        "eval_genes_per_second": rates[auto],
    }


def _print(setting: Setting, figures: Figures, peaks: Peaks) -> None:
    console = Console()
    where = f"on {setting.device_name}, {torch.get_num_threads()} threads, batch {setting.batch}"
    table = Table("", "seconds", "genes/s", "times naive", "memory MB", "evaluated genes/s", title=where)
    for name in (NAIVE, *PRECISIONS):
        ratio = Ratio(*(figures[f"{name}_ratio{end}"] for end in ("", "_low", "_high"))) if name != NAIVE else 1
        numbers = (figures[f"{name}_seconds"], figures[f"{name}_genes_per_second"])
        more = (figures[f"{name}_memory_mb"], figures[f"{name}_eval_genes_per_second"])
        table.add_row(name, f"{numbers[0]:.4f}", f"{numbers[1]:.1f}", str(ratio), f"{more[0]:.0f}", f"{more[1]:.1f}")
    console.print(table)
    console.print(
        f"memory {figures['memory_ratio']:.2f} of the naive in fp32, {figures['memory_ratio_bf16']:.2f} in bf16; "
        f"evaluation {figures['eval_ratio']:.2f} times as fast"
    )
    for name in PRECISIONS:
        console.print(
            f"roofline {name}: {figures[f'reached_gflops_{name}']:.0f} of {peaks.gflops(name):.0f} GFLOP/s "
            f"({figures[f'reached_share_of_peak_{name}']:.1%}), at least {figures[f'least_gbps_{name}']:.1f} of "
            f"{peaks.copy_gbps:.1f} GB/s ({figures[f'least_share_of_copy_{name}']:.1%})"
        )
    console.print(
        f"{figures['useful_gflop']:.1f} GFLOP of a step are useful, the naive one makes "
        f"{figures['naive_counted_gflop']:.1f}"
    )


def main(
    batch: Annotated[int, typer.Option(min=2, help="Genes of a training step.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="In each of which all take their turn; the medians count.")] = 7,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    preset: Annotated[str, typer.Option(help="A published network with a Perceiver branch.")] = "table1",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of PyTorch on the CPU; as it chooses unless said.")
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="Tiny sizes, to try the command.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with the figures as JSON on stdout.")] = False,
) -> None:
    """Measure steps of training and evaluation. Ratios above 1 mean that ours is better, except memory's, which are
    ours / naive."""
    if (published := PRESETS.get(preset)) is None or published.settings["family"] == "xpresso":
        known = [name for name, one in PRESETS.items() if one.settings["family"] != "xpresso"]
        raise typer.BadParameter(f"--preset is one of {', '.join(known)}, but got {preset!r}")
    if threads:
        torch.set_num_threads(threads)
    setting = Setting.of(preset, batch, device, small)
    with full_precision():
        figures, peaks = measure(setting, rounds, SMALL_PEAKS if small else None)
    if as_json:
        print(json.dumps(figures))
        return
    _print(setting, figures, peaks)


if __name__ == "__main__":
    typer.run(main)
