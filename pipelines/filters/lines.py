"""Which lines of a page are no text: RefinedWeb's line rules, and boilerplate by word lists.

*Bounded* rules are RefinedWeb's (Penedo et al. 2023, table G.2): lines of numbers, of capitals, single words, counters,
call-outs. Where they hold more than 5 % of the words, the page is left as it is and `refinedweb.flagged_word_fraction`
tells, so that a rule can drop it; below, counters and call-outs are taken out. Numbers, capitals and single words are
only counted: on pages about programs most such lines are code or tables. *Boilerplate* lines (navigation, editor,
sharing, registration numbers, floors of a forum) are taken out wherever they stand, unless half of the text would go.
"""

from __future__ import annotations

import numpy as np

from pipelines.filters.scan import (
    CAPITALS,
    CURLY,
    ENDED,
    HAS_DIGIT,
    L_FLAGS,
    L_FROM,
    L_TO,
    L_UNIT,
    L_UNITS,
    L_WORDS,
    MARKED_UP,
    NUMERIC,
)
from pipelines.kernels import subkernel

BUILT_IN = ("line_numbers", "line_capitals", "line_one_word")  # reasons 1 to 3; lists follow
COUNTED_ONLY = len(BUILT_IN)
BOUND = 0.05
BOILERPLATE_BOUND = 0.5
_ONE_WORD_NEIGHBOUR = 6  # words: a single word is a heading where a longer line is next


@subkernel
def judge_lines(lines, count, kinds, line_bits, is_line, bounded, unspaced, why):  # noqa: C901
    """`why` (lines,): 0 or the number of the first rule that flags the line, negative for bounded rules.

    Returns words, words of bounded lines, words of boilerplate lines, and their lines. Lines inside fenced code are
    never flagged.
    """
    words = bounded_words = boilerplate_words = 0
    bounded_lines = boilerplate_lines = 0
    for line in range(count):
        why[line] = 0
        if lines[line, L_FROM] == lines[line, L_TO]:
            continue
        here = lines[line, L_WORDS]
        words += here
        flags = lines[line, L_FLAGS]
        rule = 0
        for number in range(0 if flags & CURLY else is_line.shape[0]):
            if is_line[number] and line_bits[line] >> np.uint64(number) & np.uint64(1):
                rule = number + 4
                if bounded[number]:
                    rule = -rule
                else:
                    break
        if rule == 0 and not unspaced and not flags & (MARKED_UP | CURLY):
            if flags & NUMERIC and here > 0 and lines[line, L_UNITS] <= 2 * here + 1:
                rule = -1
            elif flags & CAPITALS and here > 3 and flags & ENDED == 0:
                rule = -2
            elif here == 1 and not flags & ENDED and not kinds[lines[line, L_UNIT]] & HAS_DIGIT:
                before = lines[line - 1, L_WORDS] if line > 0 else 0
                after = lines[line + 1, L_WORDS] if line + 1 < count else 0
                if before <= _ONE_WORD_NEIGHBOUR and after <= _ONE_WORD_NEIGHBOUR and line > 0:
                    rule = -3
        why[line] = rule
        if rule < 0:
            bounded_words += here
            bounded_lines += 1
        elif rule > 0:
            boilerplate_words += here
            boilerplate_lines += 1
    return words, bounded_words, bounded_lines, boilerplate_words, boilerplate_lines
