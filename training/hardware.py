"""What accelerators can do, by name: the one table that plans and utilisation figures go by.

Peaks are from the makers' data sheets. `reached_fraction` is the share of the peak that training reaches
before pipeline bubbles and communication: 0.64 puts Skywork-13B's own layout search on A800 (Wei et al., 2023, table
10) where it was measured; 0.48 is what Megatron-LM reports at best on H100. `all_reduce_gb_per_s` is fitted to the same
table for A800 and scaled by the links of the others; `network_gb_per_s` is that of Skywork's cluster (800 Gb/s a node)
or of one 400 Gb/s card a GPU. Prices are round figures of rented machines: give your own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of accelerator; GB are 10^9 bytes."""

    peak_tflops: float  # bf16 in tensor cores, dense
    fp32_tflops: float  # torch multiplies fp32 outside of them unless it is told otherwise
    memory_gb: float
    reached_fraction: float
    all_reduce_gb_per_s: float  # inside a node, as a ring's bus bandwidth
    network_gb_per_s: float  # between nodes, a GPU's share
    dollars_per_hour: float


_A800 = Gpu(
    peak_tflops=312,
    fp32_tflops=19.5,
    memory_gb=80,
    reached_fraction=0.64,
    all_reduce_gb_per_s=60,
    network_gb_per_s=12.5,
    dollars_per_hour=1.5,
)
_H100 = Gpu(
    peak_tflops=989,
    fp32_tflops=67,
    memory_gb=80,
    reached_fraction=0.48,
    all_reduce_gb_per_s=135,
    network_gb_per_s=50,
    dollars_per_hour=2.8,
)
GPUS: dict[str, Gpu] = {
    "a800-80g": _A800,
    "a100-80g": replace(_A800, all_reduce_gb_per_s=90, network_gb_per_s=25, dollars_per_hour=1.8),
    "h800-80g": replace(_H100, all_reduce_gb_per_s=60, dollars_per_hour=2.5),
    "h100-80g": _H100,
    "h200": replace(_H100, memory_gb=141, dollars_per_hour=3.5),
}


def gpu(name: str) -> Gpu:
    """The accelerator by name; ConfigError that names what there is."""
    if name not in GPUS:
        raise ConfigError(f"no figures for GPU {name!r}; there are {', '.join(GPUS)}")
    return GPUS[name]
