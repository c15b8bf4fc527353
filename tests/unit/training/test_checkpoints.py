# ruff: noqa: E402  (torch may be absent)
"""What of a run's checkpoints stays, which of the nodes' folders count, and that a death leaves whole ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pipelines.datasets.store import MemoryStore
from pipelines.errors import ConfigError, GristmillError, InputError, IntegrityError
from tests.unit.runtime.counting_store import CountingStore, Killed
from training.checkpoint.local import LocalTier
from training.checkpoint.reader import CheckpointReader
from training.checkpoint.retention import Retention, is_milestone
from training.checkpoint.saved import Progress, Save, restore
from training.data.plan import DatasetPin, single_segment_plan
from training.data.rows import SpecialTokens, build_row
from training.model.decoder import ModelConfig
from training.run_log import Attempt, RunLog

pytestmark = pytest.mark.torch

MODEL = ModelConfig(vocab_size=8, d_model=4, layers=1, heads=2, kv_heads=1, d_ff=4)
RECIPE = {"seed": 1, "model": {"layers": 2}}
STEPS, MILESTONE = 6, 2


@dataclass
class Run:
    """A run of a whole parameter: what the engine gives."""

    parameter: str
    start: tuple[int, ...]
    size: tuple[int, ...]
    offset: int
    tensors: dict


@dataclass
class Filled:
    """An engine whose every number is the step: what a checkpoint holds is told by its values."""

    value: float = 0.0
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    zero_stage: int = 1
    precision: str = "fp32"
    versions: dict = field(default_factory=dict)
    shapes: dict = field(default_factory=lambda: {"matrix.weight": (3, 5), "norm.weight": (5,)})
    decayed: set = field(default_factory=lambda: {"matrix.weight"})

    def __post_init__(self):
        self.adam_steps = int(self.value)
        self._tensors = {
            name: {state: torch.full(shape, self.value) for state in ("master", "exp_avg", "exp_avg_sq")}
            for name, shape in self.shapes.items()
        }

    def fragments(self, *, owned):
        for name, tensors in self._tensors.items():
            flat = {state: tensor.view(-1) for state, tensor in tensors.items()}
            yield Run(name, (0,) * tensors["master"].ndim, self.shapes[name], 0, flat)

    def after_load(self, *, adam_steps):
        self.adam_steps = adam_steps

    def evaluate(self, rows):
        return np.full(len(rows), float(sum(tensors["master"].sum() for tensors in self._tensors.values())))


@pytest.fixture(scope="module", autouse=True)
def group(tmp_path_factory):
    """A process group of one."""
    place = tmp_path_factory.mktemp("group") / "file"
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def planned(name: str = "tiny") -> MemoryStore:
    store = MemoryStore()
    pin = DatasetPin(name="tokens", version=1, manifest_sha256="a" * 64)
    plan = single_segment_plan(
        seed=1, dataset=pin, weights={"en": 1}, sequence_length=8, rows_per_batch=2, steps=STEPS
    )
    RunLog(store, name).write_plan(plan, RECIPE)
    return store


def begin_save(store, attempt: Attempt, step: int) -> Save:
    progress = Progress(step=step, position=2 * step, trained_tokens=10 * step)
    state = attempt.log.state
    facts = {"attempt": attempt.number, "plan": {"revision": state.revision}, "identity": state.identity}
    facts["loss"] = 1.0 / step
    facts["parent"] = state.checkpoint and {"sha256": state.checkpoint["sha256"]}
    return Save(Filled(step), store, "tiny", progress, folder=attempt.folder, model=MODEL, probe=[], facts=facts)


def save(store, attempt: Attempt, step: int, **options) -> None:
    begin_save(store, attempt, step).commit(attempt, **options)


def branched(store, checkpoint) -> None:
    """A run that goes on from this checkpoint."""
    entry = {k: v for k, v in checkpoint.items() if k not in ("kind", "number", "format", "at", "attempt")}
    RunLog(store, "branch").begin_branch(RunLog(store, "tiny").state.plan, RECIPE, entry, {})


def train_on(store, keep_last: int = 2) -> None:
    """A save a step from the newest checkpoint on; the second is a milestone."""
    attempt = Attempt(RunLog(store, "tiny"), {})
    retention = Retention(attempt, keep_last)
    begun = (attempt.log.state.checkpoint or {"step": 0})["step"]
    for step in range(begun + 1, STEPS + 1):
        save(store, attempt, step, milestone=step == MILESTONE)
        retention.run_pass()
    if begun == STEPS:
        retention.run_pass()


def check_whole(store, entry) -> None:
    """Every number of the checkpoint is its step's, and it restores."""
    reader = CheckpointReader(store, entry["key"], entry["sha256"])
    for name, shape in reader.shapes.items():
        for values in reader.read(name, 0, math.prod(shape)).values():
            assert set(values.tolist()) == {float(entry["step"])}
    engine = Filled()
    assert restore(engine, reader, []).step == entry["step"] == engine.adam_steps


def folders(store) -> set[str]:
    return {info.key.rpartition("/")[0] for info in store.list("runs/tiny/checkpoints/")}


def test_the_newest_and_the_milestones_stay_and_nothing_else_lies_about():
    store = planned()
    train_on(store)
    kept = RunLog(store, "tiny").state.kept
    assert [c["step"] for c in kept] == [MILESTONE, STEPS - 1, STEPS]
    assert folders(store) == {c["key"].rpartition("/")[0] for c in kept}
    for entry in kept:
        check_whole(store, entry)
    with pytest.raises(InputError, match="no checkpoint of step 3"):
        RunLog(store, "tiny").checkpoint_of(3)


def test_without_keep_last_every_checkpoint_stays():
    store = planned()
    attempt = Attempt(RunLog(store, "tiny"), {})
    retention = Retention(attempt, 0)
    for step in (1, 2, 3):
        save(store, attempt, step)
        retention.begin()
    retention.finish()
    assert [c["step"] for c in RunLog(store, "tiny").state.kept] == [1, 2, 3]


def test_a_death_at_any_store_call_leaves_whole_checkpoints_and_the_next_attempt_cleans_up():
    calls = CountingStore(planned())
    train_on(calls)
    assert calls.calls > 50
    for after in (False, True):
        for k in range(1, calls.calls + 1):
            inner = planned()
            with pytest.raises((Killed, GristmillError)):
                train_on(CountingStore(inner, die_at=k, after=after))
            state = RunLog(inner, "tiny").state
            for entry in state.kept:
                check_whole(inner, entry)
            assert state.checkpoint is None or state.checkpoint == state.kept[-1]
            train_on(inner)
            kept = RunLog(inner, "tiny").state.kept
            assert [c["step"] for c in kept] == [MILESTONE, STEPS - 1, STEPS], (k, after)
            assert folders(inner) == {c["key"].rpartition("/")[0] for c in kept}, (k, after)
            for entry in kept:
                check_whole(inner, entry)


def test_what_another_run_was_branched_from_or_begins_with_stays():
    store = planned()
    attempt = Attempt(RunLog(store, "tiny"), {})
    for step in range(1, 5):
        save(store, attempt, step)
    one, two = (RunLog(store, "tiny").checkpoint_of(step) for step in (1, 2))
    plan = attempt.log.state.plan
    branched(store, one)
    RunLog(store, "after").write_plan(plan, {**RECIPE, "start": {"run": "tiny", "step": 2, "key": two["key"]}})
    Retention(attempt, 1).run_pass()
    assert [c["step"] for c in RunLog(store, "tiny").state.kept] == [1, 2, 4]
    for entry in RunLog(store, "tiny").state.kept:
        check_whole(store, entry)
    assert not list(store.list("runs/tiny/checkpoints/step-00000003/"))


def test_a_run_that_is_branched_while_its_checkpoint_is_given_up_keeps_the_objects():
    """The chain said `retired` already; the branch was written before the removal looks at other runs."""
    store = planned()
    attempt = Attempt(RunLog(store, "tiny"), {})
    for step in (1, 2):
        save(store, attempt, step)
    one = RunLog(store, "tiny").checkpoint_of(1)

    class Branches(Retention):
        def _retire(self, pinned):
            super()._retire(pinned)
            branched(store, one)

    Branches(attempt, 1).run_pass()
    assert [c["step"] for c in RunLog(store, "tiny").state.kept] == [2]
    check_whole(store, RunLog(store, "branch").state.checkpoint)


def test_a_load_is_proven_on_the_probe_rows_that_hold_the_same_tokens_as_when_it_was_saved():
    class Judge(Filled):
        """The loss of a row is its first token, or `wrong`."""

        wrong = 0.0

        def evaluate(self, rows):
            return np.array([row.ids[0] + self.wrong for row in rows])

    def row(position, *tokens):
        return build_row(position, [np.array(tokens)], SpecialTokens(eos_id=2, pad_id=3, filler_id=4))

    store, rows = planned(), [row(0, 20, 21), row(1, 30, 31)]
    attempt = Attempt(RunLog(store, "tiny"), {})
    facts = {"attempt": 1, "loss": 1.0}
    Save(
        Judge(1.0), store, "tiny", Progress(step=1), folder="attempt-0001", model=MODEL, probe=rows, facts=facts
    ).commit(attempt)
    entry = attempt.log.state.checkpoint

    def load(probe, wrong: float = 0.0) -> int:
        engine = Judge()
        engine.wrong = wrong
        return restore(engine, CheckpointReader(store, entry["key"], entry["sha256"]), probe).step

    assert load(rows) == 1
    taken_down = [rows[0], row(1, 4, 4)]
    assert load(taken_down) == 1, "what was taken down is not compared"
    for probe in (rows, taken_down):
        with pytest.raises(IntegrityError, match="probe rows have loss"):
            load(probe, wrong=0.1)


def test_a_local_checkpoint_counts_where_it_goes_on_from_what_the_chain_names_now(tmp_path):
    store, near = planned(), LocalTier(str(tmp_path), "tiny")

    def usable() -> list[tuple[int, int]]:
        found = near.agreed(RunLog(store, "tiny").state, world_size=1)
        return [(one.attempt, one.step) for one in found]

    first = Attempt(RunLog(store, "tiny"), {})
    begin_save(near.store, first, 1).commit_beside()
    assert usable() == [(1, 1)], "a run that has no checkpoint yet"
    save(store, first, 2)
    assert usable() == [], "older than the chain's newest"
    begin_save(near.store, first, 3).commit_beside()
    slow = begin_save(store, first, 4)
    begin_save(near.store, first, 5).commit_beside()
    slow.commit(first)
    assert usable() == [(1, 5)], "begun before the store's was committed, by the same attempt"
    second = Attempt(RunLog(store, "tiny"), {})
    begin_save(near.store, second, 5).commit_beside()
    assert usable() == [(2, 5), (1, 5)], "the newest attempt's first"
    save(store, second, 6)
    begin_save(near.store, first, 7).commit_beside()
    assert usable() == [], "an overtaken attempt's, which does not go on from step 6"
    begin_save(near.store, second, 7).commit_beside()
    near.remove_old()
    assert usable() == [(2, 7)]
    assert len({info.key.rpartition("/")[0] for info in near.store.list("runs/")}) == 2
    again = planned()  # the root was deleted, and the same run begun anew
    begin_save(near.store, Attempt(RunLog(again, "tiny"), {}), 8).commit_beside()
    assert usable() == [(2, 7)], "of another run of the same name and plan"
    second.log.revise(second.log.state.plan, {**RECIPE, "seed": 2}, from_position=12, note={})
    assert usable() == [], "by a recipe that was amended"
    with pytest.raises(ConfigError, match="local_folder is 's3://b/x'"):
        LocalTier("s3://b/x", "tiny")


@pytest.mark.parametrize(
    ("before", "after", "is_one"),
    [((9, 90), (10, 99), True), ((10, 100), (19, 199), False), ((10, 199), (11, 200), True), ((0, 0), (9, 99), False)],
)
def test_a_milestone_is_passed_by_steps_or_by_tokens(before, after, is_one):
    assert is_milestone(before, after, every_steps=10, every_tokens=100) is is_one
    assert not is_milestone(before, after, every_steps=0, every_tokens=0)
