"""Take a Hugging Face sequence classifier as a scorer: its folder becomes an artifact that score_quality runs.

The folder holds config.json, tokenizer.json (or vocab.txt of a BERT) and model.safetensors. The files are stored as
they are, so that every score leads back to their sha256. Code that a folder brings is never run, pickles never read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.runtime.artifacts import make_artifact
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.entry import job_main
from pipelines.datasets.manifest import Manifest
from pipelines.errors import InputError

ENGINE = "process"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of import_classifier."""

    folder: str = setting("", "folder of the classifier, as save_pretrained writes it", content=False)
    output: str = setting("quality_bert", "artifact to write", content=False)
    label: str = setting("", "label whose probability is the score: a name of id2label or a number; empty: the last")
    low: float | None = setting(None, "of a regression: the output that scores 0")
    high: float | None = setting(None, "of a regression: the output that scores 1")
    max_tokens: int = setting(512, "tokens that are read of a text")

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


def run(config: Config, context: Context) -> list[Manifest]:
    """Read, look whether it can be used, commit."""
    from pipelines.quality.classifier import classifier_settings
    from pipelines.quality.scorers import SETTINGS

    files = read_folder(Path(config.folder))
    told = classifier_settings(
        json.loads(files["config.json"]), label=config.label, low=config.low, high=config.high,
        max_tokens=config.max_tokens,
    )  # fmt: skip
    files[SETTINGS] = json.dumps(told, indent=1, sort_keys=True).encode()
    stats: dict[str, Any] = {"bytes": sum(len(body) for body in files.values()), "max_tokens": told["max_tokens"]}
    manifest = make_artifact(
        context,
        config.output,
        "quality_model",
        job="import_classifier",
        stage_id=stage_id("import_classifier", VERSION, config),
        config=content_config(config),
        inputs=sorted(hashlib.sha256(name.encode() + body).hexdigest()[:32] for name, body in files.items()),
        make=lambda: (files, stats),
    )
    return [manifest]


def read_folder(folder: Path) -> dict[str, bytes]:
    """The three files that are used, by name; InputError where one is missing."""
    files: dict[str, bytes] = {}
    for name in ("config.json", "model.safetensors"):
        path = folder / name
        if not path.is_file():
            mend = "save it with save_pretrained(FOLDER, safe_serialization=True)"
            raise InputError(f"no {name} in {folder}", mend=mend)
        files[name] = path.read_bytes()
    if (folder / "tokenizer.json").is_file():
        files["tokenizer.json"] = (folder / "tokenizer.json").read_bytes()
    elif (folder / "vocab.txt").is_file():
        files["tokenizer.json"] = _bert_tokenizer(folder)
    else:
        raise InputError(f"neither tokenizer.json nor vocab.txt in {folder}", mend="save the tokenizer there as well")
    return files


def _bert_tokenizer(folder: Path) -> bytes:
    from tokenizers.implementations import BertWordPieceTokenizer

    told = folder / "tokenizer_config.json"
    lowercase = bool(json.loads(told.read_text("utf-8")).get("do_lower_case", True)) if told.is_file() else True
    return BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=lowercase).to_str().encode()


if __name__ == "__main__":
    job_main("import_classifier")
