"""Language of a text by fastText's lid.176 (compressed form; Joulin et al. 2016, CC BY-SA 3.0, see NOTICE).

The model lies in the repository and its hash is checked before it is read.  Only the first 1,500 characters
are looked at: more changes almost no label and costs linearly.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from importlib.resources import as_file, files

from pipelines.errors import IntegrityError, SetupError

MODEL_NAME = "lid.176"
MODEL_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
LOOKED_AT_CHARACTERS = 1_500
UNKNOWN = "und"
# The model cuts words at spaces.  Chinese without a space is one huge word of unknown pieces: a repeated
# sentence came out as Occitan with 0.41, and as zh with 0.99 once its pauses were spaces.
_PAUSE = re.compile("[，。、！？；：“”‘’（）《》〈〉「」『』【】…—·～]")
# Written Wu is not what the label means on web pages: the model gives it to plain Chinese pages now and then.
_FOLDED = {"wuu": "zh"}


def identify(text: str | None) -> tuple[str, float]:
    """(ISO 639 code, share in [0, 1] on a grid of 1e-4); ("und", 0.0) where there are no letters."""
    spaced = _PAUSE.sub(" ", (text or "")[: 2 * LOOKED_AT_CHARACTERS])
    line = " ".join(spaced.split())[:LOOKED_AT_CHARACTERS]
    if not any(char.isalpha() for char in line):
        return UNKNOWN, 0.0
    labels, shares = _model().predict(line)
    language = labels[0].removeprefix("__label__")
    return _FOLDED.get(language, language), round(min(max(float(shares[0]), 0.0), 1.0), 4)


def identify_all(texts: Iterable[str | None]) -> list[tuple[str, float]]:
    """`identify` for each text."""
    return [identify(text) for text in texts]


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
