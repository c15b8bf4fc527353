"""A larger vocabulary out of an existing one: its pieces keep their order, new ones come after them.

Every score is made distinct. Pieces with one score, as merged vocabularies have them, are joined left to right by
SentencePiece and by rank elsewhere, and no two encoders agree on them.
"""

from __future__ import annotations

import numpy as np

from pipelines.errors import ConfigError
from pipelines.tokens.vocabulary import NORMAL, Vocabulary


def distinct_scores(vocabulary: Vocabulary) -> Vocabulary:
    """The same pieces in the same order of merges, ties by id, with scores 0, -1, -2 ... by that order."""
    normal = vocabulary.normal
    order = normal[np.lexsort((normal, -vocabulary.scores[normal]))]
    scores = vocabulary.scores.copy()
    scores[order] = -np.arange(len(order), dtype=np.float32)
    return Vocabulary(pieces=vocabulary.pieces, scores=scores, kinds=vocabulary.kinds)


def extend_vocabulary(base: Vocabulary, learned: Vocabulary, vocab_size: int) -> Vocabulary:
    """`base` with the pieces of `learned` that it lacks, best first, up to `vocab_size`.

    What comes before the merged pieces (reserved ids, bytes) is that of `learned`, so a base of another make gets ours
    and its ids shift; a base made by train_tokenizer keeps every id. Raises ConfigError where there is no room, or too
    little that is new.
    """
    head = [i for i, kind in enumerate(learned.kinds) if kind != NORMAL]
    ours = _by_score(learned)
    kept = [base.pieces[i] for i in _by_id(base)]
    known = set(kept)
    new = [learned.pieces[i] for i in ours if learned.pieces[i] not in known]
    room = vocab_size - len(head) - len(kept)
    if room < 0 or len(new) < room:
        raise ConfigError(
            f"vocab_size is {vocab_size}; the base has {len(kept)} pieces, the text gives {len(new)} more",
            mend=f"set vocab_size between {len(head) + len(kept)} and {len(head) + len(kept) + len(new)}",
        )
    ranked = [base.pieces[i] for i in _by_score(distinct_scores(base))]
    pieces = kept + new[:room]
    rank = {piece: -float(n) for n, piece in enumerate(ranked + new[:room])}
    scores = [0.0] * len(head) + [rank[piece] for piece in pieces]
    return Vocabulary(
        pieces=tuple([learned.pieces[i] for i in head] + pieces),
        scores=np.array(scores, np.float32),
        kinds=np.concatenate([learned.kinds[head], np.full(len(pieces), NORMAL, np.uint8)]),
    )


def _by_score(vocabulary: Vocabulary) -> list[int]:
    normal = vocabulary.normal
    return normal[np.argsort(-vocabulary.scores[normal], kind="stable")].tolist()


def _by_id(vocabulary: Vocabulary) -> list[int]:
    return vocabulary.normal.tolist()
