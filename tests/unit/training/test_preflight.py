
from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from pipelines.errors import ConfigError, SetupError
from training.layout import EngineConfig
from training.model.presets import preset
from training.preflight import Machine, preflight, this_machine

pytestmark = pytest.mark.torch

MODEL = preset("skywork-13b", 65_536)
LAYOUT = EngineConfig(precision="bf16", micro_batch_rows=1, tensor_parallel=2, pipeline_stages=2)
VERSIONS = {"torch": "2.13.0", "deepspeed": "0.19.8"}
JOINED = {"NCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0"}
GOOD = [
    Machine(node=f"node-{i // 4}", versions=VERSIONS, gpu="H800", gpus_here=4, environment=JOINED) for i in range(16)
]


def check(model=MODEL, layout=LAYOUT, machines=GOOD, **more) -> None:
    preflight(model, layout, machines, **{"rows_per_batch": 64, "use_gpu": True, **more})


def test_a_sound_run_passes_and_so_does_this_machine_without_gpus():
    check()
    here = [replace(this_machine(), environment=JOINED)] * 2
    check(layout=EngineConfig(), machines=here, use_gpu=False)


@pytest.mark.parametrize(
    ("wrong", "said", "mend"),
    [
        ({"layout": replace(LAYOUT, tensor_parallel=8)}, "does not divide the model's heads 36", "divides them"),
        ({"machines": GOOD[:6]}, "6 ranks cannot be divided", "4 ranks"),
        ({"layout": replace(LAYOUT, tensor_parallel=1, pipeline_stages=16), "model": preset("125m", 64)}, "none", "12"),
        ({"rows_per_batch": 3}, "on 4 data ranks leaves 1 without a row", "fewer ranks"),
        ({"layout": replace(LAYOUT, micro_batch_rows=16)}, "50% of the time is bubble", "micro_batch_rows"),
        ({"model": replace(MODEL, positions="alibi"), "exports_llama": True}, "ALiBi cannot be exported", "rope"),
        (
            {"machines": [replace(m, node=f"node-{i % 4}") for i, m in enumerate(GOOD)]},
            "tensor ranks 0..1 lie on 2 nodes",
            "order of their nodes",
        ),
        (
            {"machines": [replace(m, gpus_here=2) for m in GOOD]},
            "4 ranks on node-0, which has 2 GPUs",
            "one rank a GPU",
        ),
        (
            {"machines": [replace(m, node="node-0" if i < 6 else "node-1", gpus_here=10) for i, m in enumerate(GOOD)]},
            "different numbers of ranks",
            "same number",
        ),
    ],
)
def test_a_model_or_layout_that_is_known_to_fail_is_refused_with_the_mend(wrong, said, mend):
    with pytest.raises(ConfigError, match=said) as refused:
        check(**wrong)
    assert mend in refused.value.mend


@pytest.mark.parametrize(
    ("layout", "change", "said", "mend"),
    [
        (LAYOUT, {"environment": {}}, "NCCL_SOCKET_IFNAME is not set on node-0", "joins the nodes"),
        (LAYOUT, {"shm_bytes": 64 << 20}, "64 MiB: NCCL dies", "--shm-size"),
        (LAYOUT, {"gpu": ""}, "no GPU is seen on node-0", "drivers"),
        (LAYOUT, {"has_bf16": False}, "H800 on node-0 has no bf16", "fp32"),
        (replace(LAYOUT, compile_model=True), {"has_compiler": False}, "needs a C\\+\\+ compiler", "g\\+\\+"),
        (LAYOUT, {"environment": {**JOINED, "DS_BUILD_OPS": "1"}}, "DS_BUILD_OPS is set", "unset"),
    ],
)
def test_machines_that_are_known_to_fail_are_refused_with_the_mend(layout, change, said, mend):
    with pytest.raises(SetupError, match=said) as refused:
        check(layout=layout, machines=[replace(machine, **change) for machine in GOOD])
    assert mend.replace("\\", "") in refused.value.mend


def test_one_odd_machine_among_many_is_found():
    odd = replace(GOOD[9], versions={**VERSIONS, "torch": "2.12.1"}, node="node-2")
    with pytest.raises(SetupError, match=r"torch: 2.13.0 \(on node-0\), 2.12.1 \(on node-2\)"):
        check(machines=[*GOOD[:9], odd, *GOOD[10:]])
    with pytest.raises(SetupError, match="different GPUs"):
        check(machines=[*GOOD[:15], replace(GOOD[15], gpu="A800")])
    with pytest.raises(SetupError, match="torch"):
        check(machines=[replace(m, environment={}, shm_bytes=0) for m in [*GOOD[:9], odd, *GOOD[10:]]])


def test_all_traps_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        check(model=replace(MODEL, positions="alibi"), exports_llama=True, rows_per_batch=3)
    assert "ALiBi" in str(refused.value)
    assert "without a row" in str(refused.value)
