"""Language of a text by a fastText model: lid.176 (compressed form; Joulin et al. 2016, CC BY-SA 3.0, see NOTICE),
or another file of the same kind that the configuration names.

The shipped model's hash is checked before it is read, another's when the configuration gives one.  Only the first
1,500 characters are looked at: more changes almost no label and costs linearly.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from pipelines.errors import IntegrityError, SetupError

MODEL_NAME = "lid.176"
MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
LOOKED_AT_CHARACTERS = 1_500
UNKNOWN = "und"
_LABEL = "__label__"
# The model cuts words at spaces.  Chinese without a space is one huge word of unknown pieces: a repeated
# sentence came out as Occitan with 0.41, and as zh with 0.99 once its pauses were spaces.
_PAUSE = re.compile("[，。、！？；：“”‘’（）《》〈〉「」『』【】…—·～]")
# Written Wu is not what the label means on web pages: the model gives it to plain Chinese pages now and then.
_FOLDED = {"wuu": "zh"}
# Models such as GlotLID name languages by three letters, with their script; lid.176 by two where there are two.
_LONG_CODES = """
    cmn:zh zho:zh lzh:zh wuu:zh eng:en deu:de fra:fr spa:es por:pt ita:it nld:nl rus:ru ukr:uk bel:be bul:bg srp:sr
    hrv:hr bos:bs slv:sl slk:sk ces:cs pol:pl ron:ro hun:hu ell:el tur:tr ara:ar arb:ar fas:fa pes:fa heb:he hin:hi
    ben:bn tam:ta tel:te mar:mr urd:ur tha:th vie:vi ind:id msa:ms zsm:ms jpn:ja kor:ko swe:sv dan:da nob:no nor:no
    nno:nn fin:fi est:et ekk:et lav:lv lvs:lv lit:lt cat:ca glg:gl eus:eu isl:is gle:ga cym:cy kaz:kk uzb:uz uzn:uz
    mon:mn khk:mn bod:bo uig:ug
"""
_SHORT = {pair[:3]: pair[4:] for pair in _LONG_CODES.split()}


class Identifier:
    """One model, opened.  `name` and `sha256` are what a dataset records of it."""

    def __init__(self, model: Any, name: str, sha256: str) -> None:
        self._model = model
        self.name = name
        self.sha256 = sha256

    def identify(self, text: str | None) -> tuple[str, float]:
        """(ISO 639 code, share in [0, 1] on a grid of 1e-4); ("und", 0.0) where there are no letters."""
        found = self.shares(text, 1)
        return found[0] if found else (UNKNOWN, 0.0)

    def shares(self, text: str | None, count: int) -> list[tuple[str, float]]:
        """The likeliest languages with their shares, at most `count`; none where there are no letters."""
        line = _line(_PAUSE.sub(" ", (text or "")[: 2 * LOOKED_AT_CHARACTERS]))
        return self._predict(line, count) if any(char.isalpha() for char in line) else []

    def bare(self, text: str) -> tuple[str, float]:
        """What the model says of the text as it stands, for comparison: no pauses widened, no label folded."""
        labels, shares = self._model.predict(_line(text[: 2 * LOOKED_AT_CHARACTERS]))
        return labels[0].removeprefix(_LABEL), float(shares[0])

    def _predict(self, line: str, count: int) -> list[tuple[str, float]]:
        labels, shares = self._model.predict(line, k=count)
        pairs = zip(labels, shares, strict=True)
        return [(_code(label), round(min(max(float(share), 0.0), 1.0), 4)) for label, share in pairs]


def identify(text: str | None) -> tuple[str, float]:
    """`Identifier.identify` with the shipped model."""
    return open_identifier().identify(text)


def identify_all(texts: Iterable[str | None]) -> list[tuple[str, float]]:
    """`identify` for each text."""
    return [identify(text) for text in texts]


@functools.cache
def open_identifier(path: str | None = None, sha256: str | None = None) -> Identifier:
    """The shipped model, or the fastText file at `path`, which must have the `sha256` (64 hex digits) if one is given.

    Raises `SetupError` where the file cannot be read, `IntegrityError` where it is another than the known one.
    """
    if path is None:
        return Identifier(_model(), MODEL_NAME, MODEL_SHA256)
    mend = "Give the path of a fastText model file that every worker can read, and its sha256."
    try:
        found = _sha256(Path(path))
    except OSError as error:
        raise SetupError(f"the language model {path} cannot be read: {error}", key=path, mend=mend) from None
    if sha256 is not None and found != sha256.lower():
        message = f"{path}: sha256 is {found[:16]}..., the configuration says {sha256[:16]}..."
        raise IntegrityError(message, key=path, mend=mend)
    import fasttext

    try:
        model = fasttext.load_model(path)
    except ValueError as error:
        raise SetupError(f"{path} is no fastText model: {error}", key=path, mend=mend) from None
    return Identifier(model, Path(path).name, found)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(text: str) -> str:
    return " ".join(text.split())[:LOOKED_AT_CHARACTERS]


@functools.cache
def _code(label: str) -> str:
    """`__label__zh`, `__label__cmn_Hani` -> zh."""
    code = label.removeprefix(_LABEL).partition("_")[0]
    return _FOLDED.get(code, _SHORT.get(code, code))


@functools.cache
def _model():
    resource = files("pipelines.language").joinpath("lid.176.ftz")
    mend = "Restore pipelines/language/lid.176.ftz from the repository."
    try:
        found = hashlib.sha256(resource.read_bytes()).hexdigest()
    except OSError as error:
        raise SetupError(f"lid.176.ftz cannot be read: {error}", key="lid.176.ftz", mend=mend) from None
    if found != MODEL_SHA256:
        message = f"lid.176.ftz: sha256 is {found[:16]}..., expected {MODEL_SHA256[:16]}..."
        raise IntegrityError(message, key="lid.176.ftz", mend=mend)
    import fasttext

    with as_file(resource) as path:  # a temporary copy where the packages lie in a zip
        return fasttext.load_model(str(path))
