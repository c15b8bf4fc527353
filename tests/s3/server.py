"""A real S3 server on loopback for tests: Ceph's object gateway over one monitor and one store in memory.

    python3 tests/s3/server.py fetch               bring Debian's or Ubuntu's packages once (no root, not
    installed) python3 tests/s3/server.py serve -- COMMAND    run COMMAND with AWS_* pointing at a fresh
    server and a bucket
                                                   called `gristmill`; the server ends with it

Standard library only: CI fetches the packages before anything is installed. The server's processes die with
the process that started them, kill -9 included, and all of its state is one folder under /tmp.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "monmaptool", "osdmaptool", "radosgw", "radosgw-admin")
PACKAGES = ("ceph-mon", "ceph-osd", "ceph-common", "radosgw")
# What the packages ask for only on servers that a person administers.
NOT_NEEDED = (
    "python3", "sudo", "lvm2", "dmeventd", "liblvm2", "libdevmapper-event", "xfsprogs", "smartmontools",
    "nvme-cli", "libnvme1", "parted", "libparted", "gdisk", "hdparm", "cryptsetup", "logrotate", "dmidecode",
    "uuid-runtime",
)  # fmt: skip
ACCESS_KEY, SECRET_KEY, BUCKET = "gristmill-test", "gristmill-test-secret", "gristmill"
PR_SET_PDEATHSIG = 1


class S3ServerError(Exception):
    """The server cannot be had here, and why."""


def cache_dir() -> Path:
    """Where the unpacked packages lie; GRISTMILL_S3_CACHE moves it."""
    if named := os.environ.get("GRISTMILL_S3_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill" / "s3-server"


def why_not_available() -> str | None:
    """None where the server can be started; else what to do."""
    if _installed() or (cache_dir() / "root" / "usr" / "bin" / "radosgw").exists():
        return None
    return "no S3 server: run `python3 tests/s3/server.py fetch` (Debian or Ubuntu, about 70 MB)"


def fetch() -> None:
    """Download and unpack the packages that this machine lacks; does nothing where they are there."""
    if why_not_available() is None:
        return
    if shutil.which("apt-get") is None:
        raise S3ServerError(
            "no apt-get here: install Ceph's radosgw, ceph-mon and ceph-osd by your own means."
        )
    plan = subprocess.run(
        ["apt-get", "install", "--simulate", "--no-install-recommends", *PACKAGES],
        capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    names = [line.split()[1] for line in plan.stdout.splitlines() if line.startswith("Inst ")]
    names = [name for name in names if not name.startswith(NOT_NEEDED)]
    if not names:
        raise S3ServerError(f"apt-get knows no radosgw: run `apt-get update` as root.\n{plan.stderr.strip()}")
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        work = Path(folder)
        (work / "root").mkdir()
        _run(["apt-get", "download", "-qq", *names], cwd=work)
        for package in sorted(work.glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(work / "root")], cwd=work)
        shutil.rmtree(cache / "root", ignore_errors=True)
        (work / "root").rename(cache / "root")


class S3Server:
    """One server: `with S3Server() as server:`, then `server.environment` holds what AWS clients read."""

    def __init__(self) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="gm-s3-", dir="/tmp"))  # Ceph wants short plain ASCII paths
        self.port = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._environ = {**os.environ, "LC_ALL": "C"}

    @property
    def endpoint(self) -> str:
        """The address to give to clients."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Endpoint, keys and region as AWS clients read them."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
        }

    def __enter__(self) -> S3Server:
        """Start the three processes; S3ServerError carries the last lines of their logs."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End them and delete all state."""
        self.stop()

    def stop(self) -> None:
        """End the processes, newest first, and delete the state."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        shutil.rmtree(self.state, ignore_errors=True)

    def _start(self) -> None:
        if reason := why_not_available():
            raise S3ServerError(reason)
        monitor_port, self.port = _free_ports(2)
        fsid = str(uuid.uuid4())
        config = self.state / "ceph.conf"
        config.write_text(self._config(fsid, monitor_port, self._libraries()))
        for name in ("mon", "osd"):
            (self.state / name).mkdir()
        address = f"[v2:127.0.0.1:{monitor_port}/0]"
        monmap, osdmap = str(self.state / "monmap"), str(self.state / "osdmap")
        self._call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        # An initial map of the one store saves a round of commands to the monitor.
        self._call("osdmaptool", "-c", str(config), "--createsimple", "1", osdmap)
        self._call("ceph-mon", "-c", str(config), "-i", "a", "--mkfs", "--monmap", monmap, "--osdmap", osdmap)
        self._spawn("ceph-mon", "-c", str(config), "-i", "a", "-f")
        self._call("ceph-osd", "-c", str(config), "-i", "0", "--mkfs", "--osd-uuid", str(uuid.uuid4()))
        self._spawn("ceph-osd", "-c", str(config), "-i", "0", "-f")
        self._call(  # waits for the store by itself, and makes the pools
            "radosgw-admin", "-c", str(config), "-n", "client.rgw", "user", "create",
            "--uid=test", "--display-name=test", "--max-buckets=0",
            f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}",
        )  # fmt: skip
        gateway = self._spawn("radosgw", "-c", str(config), "-n", "client.rgw", "-f")
        self._wait(gateway)

    def _config(self, fsid: str, monitor_port: int, libraries: Path | None) -> str:
        plugins = ""
        if libraries is not None:
            plugins = (
                f"plugin_dir = {libraries}/ceph\nerasure_code_dir = {libraries}/ceph/erasure-code\n"
                f"osd_class_dir = {libraries}/rados-classes\n"
            )
        # Without keys (auth none) the secure messenger modes cannot be met and the gateway waits for ever,
        # so they are set to crc. Each new pool waits for one proposal of the monitor: one a second by
        # default.
        return textwrap.dedent(f"""\
            [global]
            {{plugins}}fsid = {fsid}
            mon_host = [v2:127.0.0.1:{monitor_port}/0]
            public_addr = 127.0.0.1
            cluster_addr = 127.0.0.1
            ms_bind_msgr1 = false
            ms_bind_ipv6 = false
            auth_cluster_required = none
            auth_service_required = none
            auth_client_required = none
            ms_mon_cluster_mode = crc
            ms_mon_service_mode = crc
            ms_mon_client_mode = crc
            run_dir = {self.state}
            crash_dir = {self.state}
            log_file = {self.state}/$name.log
            pid_file =
            admin_socket =
            mon_allow_pool_size_one = true
            osd_pool_default_size = 1
            osd_pool_default_min_size = 1
            osd_pool_default_pg_num = 4
            osd_pool_default_pgp_num = 4
            osd_pool_default_pg_autoscale_mode = off
            osd_crush_chooseleaf_type = 0
            mon_max_pg_per_osd = 2000
            rgw_rados_pool_pg_num_min = 4
            paxos_propose_interval = 0.05
            [mon]
            mon_data = {self.state}/mon
            mon_data_avail_crit = 0
            mon_data_avail_warn = 1
            mon_cluster_log_file = {self.state}/cluster.log
            [osd]
            osd_data = {self.state}/osd
            osd_objectstore = memstore
            memstore_device_bytes = {2 * 2**30}
            osd_class_load_list = *
            osd_class_default_list = *
            [client]
            rgw_data = {self.state}
            rgw_frontends = beast endpoint=127.0.0.1:{self.port}
            rgw_enable_usage_log = false
            rgw_dynamic_resharding = false
            """).replace("{plugins}", plugins)

    def _libraries(self) -> Path | None:
        """Point PATH and the loader at the unpacked packages; None where Ceph is installed."""
        if _installed():
            return None
        root = self.state / "packages"  # a link: the cache's own path may not be ASCII
        root.symlink_to((cache_dir() / "root").resolve())
        libraries = next(root.glob("usr/lib/*/librados.so.2")).parent
        paths = [libraries, libraries / "ceph", root / "lib" / libraries.name]
        self._environ["LD_LIBRARY_PATH"] = ":".join(map(str, paths))
        self._environ["PATH"] = f"{root}/usr/bin:{self._environ.get('PATH', os.defpath)}"
        return libraries

    def _call(self, *command: str) -> None:
        try:
            _run(list(command), cwd=self.state, environ=self._environ)
        except (S3ServerError, subprocess.TimeoutExpired) as error:
            raise S3ServerError(f"{error}\n{self._log_ends()}") from error

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        program = shutil.which(command[0], path=self._environ["PATH"])
        if program is None:
            raise S3ServerError(f"{command[0]} is not there")
        with (self.state / f"{command[0]}.out").open("wb") as output:
            process = subprocess.Popen(
                [program, *command[1:]], cwd=self.state, env=self._environ, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def _wait(self, gateway: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
        until = time.monotonic() + timeout_s
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < until and gateway.poll() is None:
            try:
                opener.open(self.endpoint, timeout=3).close()
            except urllib.error.HTTPError:
                return  # any answer is one
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise S3ServerError(f"the gateway did not answer within {timeout_s:.0f} s\n{self._log_ends()}")

    def _log_ends(self) -> str:
        logs = sorted([*self.state.glob("*.out"), *self.state.glob("*.log")])
        return "\n".join(f"{log.name}: {log.read_text(errors='replace')[-500:]}" for log in logs)


def create_bucket(server: S3Server, name: str) -> None:
    """Make a bucket (needs boto3)."""
    import boto3

    boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=boto3.session.Config(proxies={}),  # pyright: ignore
    ).create_bucket(Bucket=name)


def _installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


def _run(command: list[str], *, cwd: Path, environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        raise S3ServerError(f"{command[0]} failed ({done.returncode}): {(done.stderr or done.stdout)[-800:]}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Fetch, or serve one command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["fetch", "serve"])
    parser.add_argument("command", nargs="*")
    arguments = parser.parse_args()
    try:
        if arguments.action == "fetch":
            fetch()
            print(f"S3 server: ready in {cache_dir()}", file=sys.stderr)
            return 0
        with S3Server() as server:
            create_bucket(server, BUCKET)
            print(f"S3 server: {server.endpoint}, bucket {BUCKET}", file=sys.stderr)
            return subprocess.run(
                arguments.command or ["bash"], env={**os.environ, **server.environment}, check=False
            ).returncode
    except S3ServerError as error:
        print(f"S3 server: {error}", file=sys.stderr)
        return 6


if __name__ == "__main__":
    sys.exit(main())
