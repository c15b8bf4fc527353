"""What is sent to a cluster, kept under its run so that it can be posted again (F).

    runs/NAME/submissions/000001.json           a create-only chain; its number is the attempt
    runs/NAME/submissions/code-<hash16>.zip     the code, named by its content

An entry holds the entrypoint, the environment and the code's digest; never a secret: keys come to the
workers by their own provider chain (files, instance roles, the environment of their cluster).
"""

from __future__ import annotations

import json
import re
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.runtime.config import read_config_file
from jobs.runtime.package import Package
from pipelines.datasets.chain import Chain
from pipelines.datasets.names import check_name
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, ConflictError, InputError, IntegrityError

FORMAT = "gristmill.submission/1"
SPARK_JOBS = ("extract_crawl", "dedup_documents", "dedup_lines", "dedup_substrings")
RAY_JOBS = ("score_quality", "tokenize_documents", "pretrain")
# Of the AWS variables only those that name places travel; keys never do.
TRAVELLING = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)
_SECRET_NAME = re.compile(r"secret|passw|credential|access_?key|api_?key|session_token|auth_token", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One entry of the chain; `arguments` follow `python -m jobs.JOB`."""

    run: str
    attempt: int
    job: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    code_key: str
    code_sha256: str
    cluster: str
    created_at: str

    @property
    def submission_id(self) -> str:
        """The name on Ray's Jobs page."""
        return f"{self.run}-{self.attempt}"


def job_arguments(
    root: str, *, sets: Sequence[str] = (), config_files: Sequence[Path] = (), single_writer: bool = False
) -> tuple[str, ...]:
    """The arguments of a job; the settings of files are written out, because the files stay here."""
    arguments = ["--root", root]
    for file in config_files:
        for key, value in _leaves(read_config_file(file)[1]):
            arguments += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    for one in sets:
        arguments += ["--set", one]
    return (*arguments, *(["--single-writer"] if single_writer else []))


def run_of(sets: Sequence[str]) -> str | None:
    """The run that `--set run=NAME` names, the last one of several."""
    named = [one.partition("=")[2] for one in sets if one.startswith("run=")]
    return named[-1] if named else None


def travelling_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that go with a submission: where the store lies, threads, text encoding."""
    chosen = {name: environ[name] for name in TRAVELLING if environ.get(name)}
    return {**chosen, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}


def check_no_secret(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """ConfigError where something looks like a secret: a cluster shows its submissions to everybody."""
    for name, value in environment.items():
        if _SECRET_NAME.search(name) or _URL_PASSWORD.search(value):
            raise ConfigError(f"the variable {name} looks like a secret and would travel.", mend="leave it out.")
    for one in arguments:
        if _SECRET_NAME.search(one.partition("=")[0]) or _URL_PASSWORD.search(one):
            raise ConfigError(
                f"the argument {one.partition('=')[0]!r} looks like a secret; the cluster shows it to all.",
                mend="keys reach the workers by their provider chain: a file, a role, their environment.",
            )


def record(
    store: Store,
    *,
    run: str,
    job: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    code: Package,
    cluster: str,
) -> Submission:
    """Keep the code and the next entry of the run's submissions."""
    check_name(run, what="run")
    check_no_secret(arguments, environment)
    code_key = f"runs/{run}/submissions/code-{code.sha256[:16]}.zip"
    store.put(code_key, code.path.read_bytes(), create_only=True)
    return _append(
        store,
        run=run,
        job=job,
        arguments=tuple(arguments),
        environment=dict(environment),
        code_key=code_key,
        code_sha256=code.sha256,
        cluster=cluster,
    )


def record_again(store: Store, last: Submission, *, cluster: str) -> Submission:
    """The same submission under the next attempt."""
    fields = asdict(last) | {"cluster": cluster, "arguments": last.arguments}
    return _append(store, **{name: fields[name] for name in fields if name not in ("attempt", "created_at")})


def latest(store: Store, run: str) -> Submission | None:
    """The newest submission of a run."""
    found = _chain(store, run).latest()
    return None if found is None else _from_entry(found[1])


def fetch_code(store: Store, submission: Submission, folder: Path) -> Package:
    """The zip that was submitted, checked against its digest."""
    import hashlib

    body = store.get(submission.code_key)
    found = hashlib.sha256(body).hexdigest()
    if found != submission.code_sha256:
        raise IntegrityError(
            f"{submission.code_key} has sha256 {found[:16]}, not {submission.code_sha256[:16]} as submitted.",
            key=submission.code_key,
            mend="submit the job anew; `--run` keeps the run.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"gristmill-{found[:16]}.zip"
    path.write_bytes(body)
    return Package(path=path, sha256=found)


def resume_command(submission: Submission, root: str) -> str:
    """What to type when this attempt has ended and the run has not."""
    words = ["gristmill", "runs", "resume", submission.run, "--root", root, "--cluster", submission.cluster]
    return shlex.join(words)


def resumed_from(store: Store, run: str) -> str:
    """The newest committed step of the run, in words; "the beginning" where there is none."""
    best = "the beginning"
    for _, entry in Chain(store, f"runs/{run}/log").entries():
        if entry.get("kind") == "checkpoint":
            loss = entry.get("loss")
            best = f"step {entry.get('step', '?')}" + (f", loss {loss:.4f}" if isinstance(loss, float) else "")
        elif entry.get("kind") == "finished":
            best = "the end: it is finished"
    return best


def _append(store: Store, **fields: Any) -> Submission:
    chain = _chain(store, fields["run"])
    for _ in range(5):
        newest = chain.latest()
        attempt = (newest[0] if newest else 0) + 1
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        submission = Submission(**fields, attempt=attempt, created_at=now)
        if chain.append(attempt, {"format": FORMAT, **asdict(submission)}, uuid.uuid4().hex):
            return submission
    raise ConflictError(
        f"the run {fields['run']} is being submitted by others at this moment.",
        mend="look at it, then try again.",
    )


def _chain(store: Store, run: str) -> Chain:
    return Chain(store, f"runs/{check_name(run, what='run')}/submissions")


def _from_entry(entry: dict[str, Any]) -> Submission:
    if entry.get("format") != FORMAT:
        raise InputError(f"a submission of format {entry.get('format')!r}, expected {FORMAT!r}.")
    known = {name: value for name, value in entry.items() if name not in ("format", "writer")}
    known["arguments"] = tuple(known["arguments"])
    return Submission(**known)


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves
