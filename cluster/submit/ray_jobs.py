"""Post a stored submission to Ray's Jobs API, and post it again.

Ray has no call to change a running job's metadata, so what a person needs to go on (run, attempt, where it
resumed from, the command to resume) is in it from the start. `exec` makes the driver the job's own process,
so that a stop reaches it.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.submit import submission as submissions
from cluster.submit.submission import Submission
from cluster.submit.target import Target
from jobs.runtime import environment
from jobs.runtime.package import Package
from jobs.runtime.ray_session import SUBMISSION_KEY, worker_runtime_env
from pipelines.datasets.store import Store
from pipelines.errors import ConflictError, GristmillError, InputError, SetupError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


def post(submission: Submission, code: Package, *, store: Store, target: Target) -> str:
    """Submit to Ray under `<run>-<attempt>`; returns that id."""
    client = connect(target)
    runtime_env: dict[str, Any] = {
        "working_dir": str(code.path),
        "env_vars": {
            **submission.environment,
            "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # else the dashboard's Train page stays empty
            "GRISTMILL_RUN": submission.run,
            "GRISTMILL_ATTEMPT": str(submission.attempt),
        },
    }
    if target.local:
        runtime_env |= worker_runtime_env()
    try:
        return client.submit_job(
            entrypoint=entrypoint(submission, local=target.local),
            submission_id=submission.submission_id,
            runtime_env=runtime_env,
            metadata=metadata(submission, store),
        )
    except RuntimeError as error:
        if "already exists" in str(error):
            raise ConflictError(
                f"{submission.submission_id} is on this cluster already.",
                mend="submit once more for the next number.",
            ) from error
        raise SetupError(
            f"Ray at {target.ray_dashboard} refused the job: {error}",
            mend="its dashboard and logs tell more; `gristmill cluster status` shows both.",
        ) from error


def resume(store: Store, run: str, *, target: Target, folder: Path) -> Submission:
    """Post a run's newest submission again, its code uploaded anew; also on a fresh cluster."""
    last = submissions.latest(store, run)
    if last is None:
        raise InputError(
            f"the run {run!r} was never submitted from {store.location}.",
            mend="`gristmill submit pretrain --run NAME` submits one; `gristmill runs ls` shows what is.",
        )
    if target.ray_dashboard and (status := status_of(connect(target), last.submission_id)) in (
        "PENDING",
        "RUNNING",
    ):
        raise ConflictError(
            f"{last.submission_id} is {status.lower()} on the cluster {target.name}.",
            mend="let it run, or stop it first.",
        )
    code = submissions.fetch_code(store, last, folder)
    again = submissions.record_again(store, last, cluster=target.name)
    post(again, code, store=store, target=target)
    return again


def entrypoint(submission: Submission, *, local: bool) -> str:
    """The shell line that Ray runs in the unpacked code."""
    python = sys.executable if local else "python"
    return shlex.join(["exec", python, "-m", f"jobs.{submission.job}", *submission.arguments])


def metadata(submission: Submission, store: Store) -> dict[str, str]:
    """What the dashboard shows; strings only, and nothing that is a secret."""
    return {
        "job_name": submission.run,
        SUBMISSION_KEY: submission.submission_id,
        "run": submission.run,
        "attempt": str(submission.attempt),
        "job": submission.job,
        "root": store.location,
        "code_sha256": submission.code_sha256,
        "resumed_from": submissions.resumed_from(store, submission.run),
        "resume": submissions.resume_command(submission, store.location),
    }


def connect(target: Target) -> JobSubmissionClient:
    """A client of the Jobs API; a missing or wrong token is told as such."""
    if target.ray_dashboard is None:
        raise SetupError(
            f"the cluster {target.name!r} has no Ray.",
            mend="`gristmill cluster up` starts one, or name it in gristmill.yaml.",
        )
    prepared = environment.engine_environment(os.environ, scratch=Path.cwd(), loopback=target.local)
    if target.ray_token_path:
        prepared |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": target.ray_token_path}
    else:
        prepared |= {"RAY_AUTH_MODE": "disabled"}
    environment.apply(prepared)
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise SetupError(
            f"ray is not installed ({error}).", mend="run `make setup`, or pip install 'gristmill[ray]'."
        ) from error
    try:
        client = JobSubmissionClient(target.ray_dashboard)
        client.get_version()
    except (AuthenticationError, RuntimeError, ConnectionError) as error:
        raise SetupError(
            f"Ray's Jobs API at {target.ray_dashboard} does not take us: {error}",
            mend="check the address, and ray_token_path in gristmill.yaml.",
        ) from error
    return client


def status_of(client: JobSubmissionClient, submission_id: str) -> str | None:
    """Ray's word for a job's state; None where this cluster does not know it."""
    try:
        return str(client.get_job_status(submission_id).value)
    except RuntimeError:
        return None


def follow(target: Target, submission_id: str, *, write: Callable[[str], None], poll_s: float = 1.0) -> None:
    """Write the job's log as it grows until the job has ended; GristmillError where it failed."""
    client = connect(target)
    written = 0
    while True:
        status = status_of(client, submission_id)
        log = client.get_job_logs(submission_id)
        write(log[written:])
        written = len(log)
        if status in ENDED:
            break
        time.sleep(poll_s)
    if status != "SUCCEEDED":
        message = client.get_job_info(submission_id).message or ""
        raise GristmillError(
            f"{submission_id} {str(status).lower()}: {message.strip()[:400]}",
            mend="its log stands above; the resume command is in the job's metadata.",
        )
