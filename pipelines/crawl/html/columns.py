"""The names of what `features` measures, and where each number stands in a row."""

from __future__ import annotations

import numpy as np

from pipelines.crawl.html.tables import TAG, categories

CATEGORIES = len(categories("attributes"))
PHRASES = len(categories("phrases"))
_ANCESTOR_TAGS = [
    "article",
    "main",
    "aside",
    "nav",
    "footer",
    "header",
    "form",
    "table",
    "tr",
    "ul",
    "ol",
    "li",
    "section",
    "figure",
    "blockquote",
    "dl",
    "h1",
    "h2",
    "h3",
    "h4",
    "p",
    "pre",
    "body",
    "button",
    "td",
    "div",
]
TAG_SLOT = np.full(256, -1, np.int16)
for _slot, _name in enumerate(_ANCESTOR_TAGS):
    TAG_SLOT[TAG[_name]] = _slot
for _name, _like in (
    ("th", "td"),
    ("h5", "h4"),
    ("h6", "h4"),
    ("figcaption", "figure"),
    ("dt", "dl"),
    ("dd", "dl"),
    ("menu", "ul"),
):
    TAG_SLOT[TAG[_name]] = TAG_SLOT[TAG[_like]]
FAR = 20.0

_OWN = [
    "tokens",
    "log_tokens",
    "letters_per_token",
    "han",
    "digit",
    "upper",
    "comma",
    "sentence_end",
    "colon",
    "bullet",
    "ends_sentence",
    "ends_other",
    "starts_lower",
    "starts_digit",
    "linked",
    "links",
    "links_per_token",
    "bold",
    "after_break",
    "time",
    "code",
    "image",
    "formula",
    "same_text",
    "in_title",
    "is_title",
    "phrase_bits",
    "tag",
    "depth",
    "markup_per_token",
    *(f"phrase.{name}" for name in categories("phrases")),
]
_AROUND = [
    *(f"near.{name}" for name in categories("attributes")),
    *(f"in.{name}" for name in _ANCESTOR_TAGS),
    *(
        f"{name}{level}"
        for level in range(5)
        for name in ("box_tokens", "box_linked", "box_blocks", "box_sentences", "box_place", "box_score")
    ),
    "path_blocks",
    "path_share",
    "path_linked",
    "path_sentences",
    "repeat_count",
    "repeat_share",
    "repeat_linked",
    "repeat_tokens",
    "repeat_index",
    "repeat_up",
    "repeat_times",
    "repeat_talk",
    "repeat_full",
    "repeat_story",
    "repeat_after",
    "best_inside",
    "best_up",
    "best_share",
    "best_linked",
    "score_share",
    "same_box_before",
    "same_box_after",
    "depth_before",
    "depth_after",
]
_SINCE = ("copyright", "editor", "share", "nav", "comment", "related", "disclaimer", "tag")
_TERMS = [
    "terms_own",
    "terms_near",
    "terms_box0",
    "terms_box1",
    "terms_box2",
    "terms_item",
    "terms_best",
    "terms_found",
]
_STORY = [
    "title_up",
    "title_down",
    "title_shared",
    "article_count",
    "article_index",
    "article_share",
    "article_titled",
    "heading_level",
    "heading_linked",
    *(f"heading.{name}" for name in ("related", "comment", "nav", "ad", "share", "login")),
    "headings_after_title",
    "heading_rank",
    *(f"since.{name}" for name in _SINCE),
    "long_since_title",
    "links_since_long",
    "repeat_links",
    "repeat_heads",
    "own_repeat_linked",
    "first_long",
    "long_rank",
    "read_inside",
    "read_joined",
    "read_up",
    "read_share",
    "read_margin",
    "read_score",
    "read_titled",
]
_PLACE = [
    "block_place",
    "token_place",
    "blocks_from_title",
    "after_title",
    "blocks_from_heading",
    "tokens_before",
    "tokens_after",
    "page_tokens",
    "page_blocks",
    "page_linked",
    "page_sentences",
    "page_han",
    "page_lists",
    "page_long",
    "page_longest",
    "page_forms",
    "page_headings",
    "page_time",
    "page_titled",
    "page_thread",
    *(f"page.{name}" for name in ("article", "forum", "product", "list", "comment", "content", "code")),
]
_NEAR = ("log_tokens", "linked", "sentence_end", "ends_sentence", "phrase_bits", "tag", "han", "comma")
_OFFSETS = (-3, -2, -1, 1, 2, 3)
FEATURES: tuple[str, ...] = (
    *_OWN,
    *_AROUND,
    *_STORY,
    *_TERMS,
    *_PLACE,
    *(f"{name}@{offset:+d}" for offset in _OFFSETS for name in _NEAR),
)
AT = {name: number for number, name in enumerate(FEATURES)}
NEAR_COLUMNS = np.array([AT[name] for name in _NEAR], np.int64)
PAGE_BITS = np.array(
    [categories("attributes").index(n) for n in ("article", "forum", "product", "list", "comment", "content", "code")],
    np.int64,
)
A_PHRASE, A_NEAR, A_IN, A_BOX = AT["phrase.copyright"], AT["near.nav"], AT["in.article"], AT["box_tokens0"]
A_PATH, A_PLACE, A_PAGE, A_AROUND = (
    AT["path_blocks"],
    AT["block_place"],
    AT["page.article"],
    AT["log_tokens@-3"],
)
A_STORY = AT["title_up"]
A_TERMS = AT["terms_own"]
A_REPEAT, A_BEST, A_THREAD = AT["repeat_count"], AT["best_inside"], AT["page_thread"]
P_COMMENT, P_COUNT = AT["phrase.comment"], AT["phrase.count"]
P_TIME = AT["phrase.time"]
SINCE_PHRASES = np.array([categories("phrases").index(name) for name in _SINCE], np.int64)
HEADING_PHRASES = np.array(
    [categories("phrases").index(n) for n in ("related", "comment", "nav", "ad", "share", "login")], np.int64
)
GOOD_BITS = np.uint32(sum(1 << categories("attributes").index(name) for name in ("article", "content", "post")))
BAD_BITS = np.uint32(
    sum(
        1 << categories("attributes").index(n)
        for n in ["comment", "footer", "sidebar", "related", "share", "ad", "form", "nav", "hidden", "tag", "header"]
    )
)
A_READ = AT["read_inside"]
BASE_SCORES = np.zeros(256, np.float64)
for _names, _score in (
    ("div article section main", 5),
    ("pre td blockquote", 3),
    ("address ol ul dl dd dt li form", -3),
    ("h1 h2 h3 h4 h5 h6 th", -5),
):
    for _name in _names.split():
        BASE_SCORES[TAG[_name]] = _score
T_ARTICLE = TAG["article"]
T_LI, T_H1, T_H6, T_P, T_PRE, T_TD = (TAG[n] for n in ("li", "h1", "h6", "p", "pre", "td"))
