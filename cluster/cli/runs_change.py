"""`gristmill runs amend|branch|compare`: change a run on its way, try something beside it, look at the difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cluster.cli.options import open_root, print_json, print_table, with_json, with_root
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, InputError

_CONFIG = click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML: weights, tokens, steps, ...",
)
_MIXTURE = click.option(
    "--mixture",
    multiple=True,
    metavar="CELL=WEIGHT",
    help="The weight of a cell; those not named leave the mixture.  A pattern such as 'en.*=3' is of all it matches.",
)
_SET = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="One setting of the change.")


@click.command()
@click.argument("name")
@click.option("--from-position", type=int, help="The first position of the change, a batch's end.")
@click.option("--from-step", type=int, help="The same by steps: the change begins after so many.")
@_CONFIG
@_MIXTURE
@_SET
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@with_root
@with_json
def amend(
    name: str,
    from_position: int | None,
    from_step: int | None,
    file: Path | None,
    mixture: tuple[str, ...],
    sets: tuple[str, ...],
    dry_run: bool,
    root: str | None,
    as_json: bool,
) -> None:
    """Change run NAME from a position on: mixture, data, batch, length, steps.

    Without a position, from the newest checkpoint. Rows before it never move.
    An attempt that is training stops at its next step; resume it to go on.
    """
    from training.amend import amended, as_note

    store = open_root(root)
    log = _log(store, name)
    asked = _amendment(file, mixture, sets)
    position = _position(log.state, from_position, from_step)
    made = amended(store, log.state, asked, position)
    reached = (log.state.checkpoint or {}).get("position", 0)
    if reached > position:
        raise ConfigError(
            f"run {name!r} has a checkpoint at position {reached}, after {position}",
            mend=f"amend from there on, or `gristmill runs branch {name}@STEP` for a run beside it",
        )
    revision = None
    if not dry_run:
        revision = log.revise(made.plan, made.recipe, from_position=position, note=as_note(asked))
    if as_json:
        print_json({"run": name, "revision": revision, "dry_run": dry_run, **made.report})
        return
    _show(made.report)
    if dry_run:
        click.echo("nothing was written (--dry-run)")
    else:
        click.echo(f"{name} has plan revision {revision}; `gristmill runs resume {name}` or the same job goes on")


@click.command()
@click.argument("what", metavar="RUN@STEP")
@click.option("--name", "new", required=True, help="Name of the new run.")
@click.option("--control", is_flag=True, help="Change nothing: what the other branches are held against.")
@_CONFIG
@_MIXTURE
@_SET
@click.option("--dry-run", is_flag=True, help="Show what would be trained; write nothing.")
@with_root
@with_json
def branch(
    what: str,
    new: str,
    control: bool,
    file: Path | None,
    mixture: tuple[str, ...],
    sets: tuple[str, ...],
    dry_run: bool,
    root: str | None,
    as_json: bool,
) -> None:
    """Begin a new run at a checkpoint of another: RUN@STEP, or RUN for the newest.

    The run itself is left alone; both share the checkpoint and the rows before it.
    """
    from training.amend import Amendment, amended, as_note
    from training.run_log import begin_branch

    store = open_root(root)
    name, _, step = what.partition("@")
    log = _log(store, name)
    if step and not step.isdigit():
        raise ConfigError(f"{what}: the step is a number", mend=f"for example {name}@100")
    checkpoint = log.checkpoint_of(int(step) if step else None)
    if control and (file or mixture or sets):
        raise ConfigError("--control changes nothing", mend="leave out --control, or the change")
    asked = Amendment() if control else _amendment(file, mixture, sets)
    made = amended(store, log.state_at(checkpoint["number"]), asked, checkpoint["position"])
    note = {"run": name, "step": checkpoint["step"], "checkpoint": checkpoint["key"], "change": as_note(asked)}
    if not dry_run:
        begin_branch(log, new, made.plan, made.recipe, checkpoint, note)
    if as_json:
        print_json({"run": new, "branched_from": note, "dry_run": dry_run, **made.report})
        return
    _show(made.report)
    click.echo(
        "nothing was written (--dry-run)"
        if dry_run
        else f"{new} begins at step {checkpoint['step']} of {name}\n"
        f"`gristmill run pretrain --set run={new} --set planned=true` trains it"
    )


@click.command()
@click.argument("left")
@click.argument("right")
@click.option("--rows", default=20, show_default=True, help="Rows of the table, at most.")
@with_root
@with_json
def compare(left: str, right: str, rows: int, root: str | None, as_json: bool) -> None:
    """Compare the losses of two runs step by step."""
    from training.metrics import read_metrics

    store = open_root(root)
    both = []
    for name in (left, right):
        _log(store, name)
        both.append({metrics["step"]: metrics for metrics in read_metrics(store, name)})
    steps = sorted(both[0].keys() & both[1].keys())
    if not steps:
        raise InputError(
            f"{left} has steps {_range(both[0])}, {right} has {_range(both[1])}: none in common",
            mend="runs branched from one checkpoint have; metrics are written at checkpoints",
        )
    same = [s for s in steps if both[0][s]["digest"] == both[1][s]["digest"]]
    late = steps[-max(1, len(steps) // 10) :]
    means = [sum(run[s]["loss"] for s in late) / len(late) for run in both]
    told: dict[str, Any] = {
        "runs": [left, right],
        "steps": [steps[0], steps[-1]],
        "same_rows_up_to_step": same[-1] if same else None,
        "mean_loss_of_the_last_tenth": [round(mean, 5) for mean in means],
        "difference": round(means[1] - means[0], 5),
        "loss_by_cell": _by_cell(*([run[s] for s in late] for run in both)),
    }
    chosen = sorted({steps[i * (len(steps) - 1) // max(1, rows - 1)] for i in range(min(rows, len(steps)))})
    table = [[s, both[0][s]["loss"], both[1][s]["loss"]] for s in chosen]
    if as_json:
        print_json({**told, "losses": table})
        return
    shown = [[s, f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}"] for s, a, b in table]
    print_table(["step", left, right, "difference"], shown)
    if cells := told["loss_by_cell"]:
        table = [[cell, f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}"] for cell, (a, b) in cells.items()]
        print_table(["cell, last tenth", left, right, "difference"], table)
    click.echo(f"the last {len(late)} common steps: {means[0]:.4f} and {means[1]:.4f}, {means[1] - means[0]:+.4f}")
    click.echo(f"the same rows up to step {same[-1]}" if same else "no step has the same rows")


def _by_cell(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Mean loss of a label of each cell that both read in these steps."""
    means = []
    for steps in (left, right):
        sums: dict[str, list[float]] = {}
        for step in steps:
            for cell, labels in step.get("tokens_by_cell", {}).items():
                loss, seen = sums.get(cell, (0.0, 0))
                sums[cell] = [loss + step["loss_by_cell"][cell] * labels, seen + labels]
        means.append({cell: loss / labels for cell, (loss, labels) in sums.items()})
    return {cell: [round(mean[cell], 5) for mean in means] for cell in sorted(means[0].keys() & means[1].keys())}


def _range(steps: dict[int, Any]) -> str:
    return f"{min(steps)} to {max(steps)}" if steps else "none"


def _log(store: Store, name: str) -> Any:
    from training.run_log import RunLog

    log = RunLog(store, name)
    if log.state.plan is None:
        raise InputError(f"no run {name!r} in {store.location}", mend="`gristmill runs ls` shows what is there")
    return log


def _amendment(file: Path | None, mixture: tuple[str, ...], sets: tuple[str, ...]) -> Any:
    from jobs.runtime.config import parse_config, parse_set, read_config_file
    from training.amend import Amendment

    sources = [read_config_file(file)] if file else []
    if mixture:
        sources.append(("--mixture", {"weights": dict(_weight(text) for text in mixture)}))
    sources += [parse_set(text) for text in sets]
    if not sources:
        raise ConfigError("no change is given", mend="--config FILE, --mixture CELL=WEIGHT or --set steps=2000")
    return parse_config(Amendment, sources)[0]


def _weight(text: str) -> tuple[str, float]:
    cell, _, weight = text.rpartition("=")
    try:
        return cell, float(weight)
    except ValueError:
        raise ConfigError(f"--mixture {text!r} is not CELL=WEIGHT", mend="for example --mixture en.web=3") from None


def _position(state: Any, position: int | None, step: int | None) -> int:
    """The position that was given, or that of a step, or of the newest checkpoint."""
    from training.data.batches import BatchPlan

    if position is not None and step is not None:
        raise ConfigError("--from-position and --from-step say the same twice", mend="give one")
    if position is not None:
        return position
    if step is None:
        return (state.checkpoint or {}).get("position", 0)
    batches = BatchPlan(state.plan)
    if not 0 <= step <= batches.steps:
        raise ConfigError(f"step {step} is outside 0..{batches.steps}")
    return batches.batch(step - 1).end if step else 0


def _show(report: dict[str, Any]) -> None:
    steps, rates = report["steps"], report["learning_rate"]
    click.echo(f"from position {report['from_position']}, after step {report['from_step']}")
    click.echo(f"steps {steps['before']} -> {steps['after']}, {report['segments']} segments in all")
    if steps["after"] < steps["asked"]:
        click.echo(f"  {steps['asked']} steps were asked for: a cell has no more rows (on_depletion)")
    if rates:
        there = f"{rates['before']:.3g} -> {rates['after']:.3g}"
        click.echo(f"learning rate there {there}, {rates['at_end']:.3g} at the end")
    print_table(
        ["cell", "share", "then", "laps seen", "laps at end"],
        [[c["cell"], c["share_before"], c["share_after"], c["laps_seen"], c["laps_at_end"]] for c in report["cells"]],
    )
    for cell in report["cells"]:
        if cell["tokens_left"]:
            click.echo(f"{cell['cell']}: {cell['tokens_left']} tokens of max_laps are left over")
    for dataset, share in report["seen_documents"].items():
        seen = "nothing of it was read before" if share is None else f"{share:.1%} of its documents were seen before"
        click.echo(f"{dataset}: {seen}")
