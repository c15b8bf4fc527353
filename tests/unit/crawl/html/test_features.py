from __future__ import annotations

import numpy as np

from pipelines.crawl.html.features import FEATURES, features
from pipelines.crawl.html.scan import scan


def column(markup: str, name: str) -> np.ndarray:
    return features(scan(markup.encode()))[0][:, FEATURES.index(name)]


def test_a_block_shares_words_with_the_title_whatever_their_case_and_ending():
    markup = (
        "<title>Нормативы снижены - Новости</title><h1>Нормативы снижены</h1>"
        "<div><p>снижение нормативов для школ</p></div><div><p>Фьючерсы на кукурузу и сою</p></div>"
    )
    own = column(markup, "terms_own")
    assert own[1] > 0.4 and own[2] == 0
    assert column(markup, "terms_box1")[2] == 0


def test_han_words_are_shared_as_pairs():
    own = column("<title>台风登陆福建</title><p>今年第五号台风昨天登陆</p><p>股市收盘上涨</p><p>台 风</p>", "terms_own")
    assert own[0] > 0 and own[1] == 0 and own[2] == 0


def test_a_title_without_words_says_nothing():
    assert (column("<title>-</title><p>some text</p>", "terms_own") == -1).all()


def post(n: int, text: str) -> str:
    return f"<div class=a><span>2024-05-{n:02d}</span><p>{text}</p><p>Reply</p></div>"


def test_a_thread_is_told_by_its_items_not_by_names():
    posts = "".join(post(n, "a long enough answer that says something about the matter at hand") for n in range(1, 7))
    links = "".join(f"<div class=a><a href=/{n}>another thread with a long enough name {n}</a></div>" for n in range(6))
    thread, listing = (f"<title>Question</title><h1>Question</h1><div>{body}</div>" for body in (posts, links))
    assert column(thread, "page_thread")[0] > 0.5
    assert column(listing, "page_thread")[0] == 0
    assert column(thread, "repeat_full")[3] == 1 and column(listing, "repeat_full")[3] == 0
    assert column(thread, "repeat_talk")[3] == 1


def test_replies_behind_a_story_differ_from_a_thread():
    story = "<p>" + "The mill turns and the grain becomes flour, as it always did. " * 3 + "</p>"
    posts = "".join(post(n, "a long enough answer that says something about the matter at hand") for n in range(1, 7))
    behind = column(f"<title>The mill</title><h1>The mill</h1><div>{story * 4}</div><div>{posts}</div>", "repeat_story")
    at_once = column(f"<title>The mill</title><h1>The mill</h1><div>{posts}</div>", "repeat_story")
    assert behind[-1] > 4 > 1 > at_once[-1]


def test_words_in_other_scripts_count_with_a_capital_too():
    found = column("<p>Читайте также: что было дальше</p><p>читайте также</p><p>что было дальше</p>", "phrase.related")
    assert found.tolist() == [1, 1, 0]
