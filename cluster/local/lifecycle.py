"""Up and down of the local cluster: Spark standalone and Ray, each process ours, nothing else touched."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster.local import state
from cluster.local.processes import Daemon, stop_daemon
from cluster.local.ray_head import start_ray_head
from cluster.local.spark_standalone import start_spark
from cluster.local.state import LocalCluster
from jobs.runtime.environment import raise_open_files, usable_cores
from jobs.runtime.ray_session import private_temp_dir


def up(
    name: str = "local",
    *,
    engines: tuple[str, ...] = ("spark", "ray"),
    workers: int = 2,
    cores: int = 1,
    memory_gib: int = 1,
    num_cpus: int | None = None,
) -> tuple[LocalCluster, bool]:
    """Start what is not there; returns the cluster and whether it was started now."""
    with state.exclusively(name):
        found = state.read(name)
        if found is not None and found.is_up():
            return found, False
        if found is not None:  # half of it is gone: a crash, a reboot
            _stop(found)
        raise_open_files()
        folder = private_temp_dir()
        daemons: list[Daemon] = []
        cluster = LocalCluster(name=name, folder=str(folder), daemons=())
        try:
            spark = ray = None
            if "spark" in engines:
                spark = start_spark(folder, workers=workers, cores=cores, memory_gib=memory_gib)
                daemons += spark.daemons
            if "ray" in engines:
                ray = start_ray_head(folder, num_cpus=num_cpus or max(4, usable_cores()))
                daemons.append(ray.daemon)
            cluster = LocalCluster(
                name=name,
                folder=str(folder),
                daemons=tuple(daemons),
                spark_master=spark.master if spark else None,
                spark_ui=spark.ui if spark else None,
                ray_address=ray.address if ray else None,
                ray_dashboard=ray.dashboard if ray else None,
                ray_token_path=str(ray.token_path) if ray else None,
            )
            state.write(cluster)
        except BaseException:
            _stop(LocalCluster(name=name, folder=str(folder), daemons=tuple(daemons)))
            raise
        return cluster, True


def down(name: str = "local") -> LocalCluster | None:
    """Stop exactly the processes that `up` started; None where there was no cluster of that name."""
    with state.exclusively(name):
        found = state.read(name)
        if found is not None:
            _stop(found)
        return found


def _stop(cluster: LocalCluster) -> None:
    for daemon in reversed(cluster.daemons):
        stop_daemon(daemon)
    folder = Path(cluster.folder)
    if folder.name.startswith("gm-"):
        shutil.rmtree(folder, ignore_errors=True)
    state.forget(cluster.name)
