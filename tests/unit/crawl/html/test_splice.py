from __future__ import annotations

import random

from pipelines.crawl.html.scan import scan
from pipelines.crawl.html.splice import Story, replies, spliced, stories_in_full, teasers, with_notices

PAGE = b"<body><div><div><p>The story ends here.</p></div></div><div>foot</div></body>"
STORIES = [Story(title=f"Title <{n}>", paragraphs=[f"First paragraph {n}.", "Second one."]) for n in range(4)]


def texts(markup: bytes) -> list[str]:
    page = scan(markup)
    raw = page.text.tobytes()
    return [raw[a:b].decode() for a, b in page.blocks[:, :2].tolist()]


def test_what_is_added_stands_behind_the_story_and_the_rest_stays():
    behind = PAGE.index(b"The story")
    for seed in range(20):
        found = texts(spliced(PAGE, behind, "<p>stranger</p>", random.Random(seed)))
        assert found[0] == "The story ends here." and sorted(found) == ["The story ends here.", "foot", "stranger"]
    assert spliced(b"<p>no container ends", 0, "<p>x", random.Random(0)) is None


def test_notices_follow_the_last_line_at_once():
    for seed in range(8):
        found = texts(with_notices(PAGE, PAGE.index(b"The story"), ["All <rights> kept"], random.Random(seed)))
        assert found == ["The story ends here.", "All <rights> kept", "foot"]
    assert with_notices(b"text only", 0, ["x"], random.Random(0)) == b"text only"


def test_stories_and_teasers_show_titles_and_texts_as_text():
    for seed in range(20):
        full = texts(stories_in_full(STORIES, random.Random(seed)).encode())
        assert full[:3] == ["Title <0>", "First paragraph 0.", "Second one."]
        short = texts(teasers(STORIES, random.Random(seed)).encode())
        assert [t for t in short if t.startswith("First")] == [f"First paragraph {n}." for n in range(4)]
        assert "Second one." not in short


def test_replies_have_a_name_and_a_date_each():
    for seed in range(20):
        found = texts(replies(["So it is.", "No <way>."], random.Random(seed)).encode())
        assert "So it is." in found and "No <way>." in found
        assert sum("20" in text for text in found) == 2


def test_the_same_draw_makes_the_same_page():
    assert teasers(STORIES, random.Random(5)) == teasers(STORIES, random.Random(5))
