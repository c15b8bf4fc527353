"""A look before extraction drops only what is surely unwanted."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.sniff import SniffRules, letter_counts, sniff, text_runs

ZH = "磨坊把谷物磨成面粉，过程分为清理、研磨和筛分三步，这样的门店还有几家。"
TEXT = {
    "zh": ZH + "他们说，今年的收成比去年好，价格也没有变，所以大家都很高兴。",
    "en": "The stones turn slowly and the grain becomes flour, as it always has in this valley. ",
    "de": "Die Steine drehen sich langsam, und aus dem Korn wird Mehl, wie es hier immer war. ",
    "ja": "石臼はゆっくりと回り、穀物は粉になる。この谷では昔からそうだった。",
    "ru": "Жернова медленно вращаются, и зерно становится мукой, как всегда было в этой долине. ",
    "ko": "맷돌은 천천히 돌고 곡식은 가루가 된다. 이 골짜기에서는 늘 그랬다. ",
}


def _page(text: str, menu: str = "Home About Contact Search Login") -> str:
    items = "".join(f"<li><a href=/x>{item}</a></li>" for item in menu.split())
    script = "<script>var a = 'function words in a script are no text';</script>"
    return f"<html><head>{script}</head><body><ul>{items}</ul><p>{text * 9}</p><!-- {TEXT['en']} --></body></html>"


@pytest.mark.parametrize("wanted", [{"zh"}, {"en"}, {"zh", "en"}, {"ja"}, {"ru"}, {"de", "ko"}])
@pytest.mark.parametrize("language", TEXT)
def test_pages_of_wanted_languages_pass_and_plainly_others_do_not(wanted, language):
    found = sniff(_page(TEXT[language]).encode(), rules=SniffRules(languages=frozenset(wanted)))
    if language in wanted:
        assert found is None
    else:
        assert found is not None and found.reason == "sniffed_language" and found.detail
        assert found.value < found.threshold


@pytest.mark.parametrize("wanted", [{"zh"}, {"en"}, {"zh", "en"}, {"ja"}, {"ru"}, {"de", "ko"}])
@pytest.mark.parametrize("language", TEXT)
def test_without_the_model_only_pages_without_letters_of_a_wanted_script_go(wanted, language):
    scripts = {"zh": "han", "ja": "han", "en": "latin", "de": "latin", "ru": "cyrillic", "ko": "hangul"}
    found = sniff(_page(TEXT[language]).encode(), rules=SniffRules(languages=frozenset(wanted), ask_model=False))
    shares_a_script = scripts[language] in {scripts[name] for name in wanted}
    assert (found is None) == (shares_a_script or "latin" in {scripts[name] for name in wanted})


def test_letters_written_as_references_count_without_the_model_too():
    rules = SniffRules(languages=frozenset({"zh"}), ask_model=False)
    assert sniff(_page("".join(f"&#{ord(char)};" for char in ZH)).encode(), rules=rules) is None
    assert sniff(_page(TEXT["en"] + "&#8212;").encode(), rules=rules) is not None


@pytest.mark.parametrize("codec", ["gb18030", "utf-16", "utf-8-sig"])
def test_the_charset_makes_no_difference(codec):
    body = _page(ZH).encode(codec)
    assert sniff(body, rules=SniffRules(languages=frozenset({"zh"}))) is None
    assert sniff(body, rules=SniffRules(languages=frozenset({"ru"}))) is not None


def test_text_written_as_character_references_counts():
    page = _page("".join(f"&#{ord(char)};" for char in ZH))
    assert sniff(page.encode(), rules=SniffRules(languages=frozenset({"zh"}))) is None


def test_a_page_in_two_languages_passes_for_either():
    for wanted in ("zh", "en"):
        page = _page(TEXT["zh"] + TEXT["en"])
        assert sniff(page.encode(), rules=SniffRules(languages=frozenset({wanted}))) is None


def test_chinese_among_much_code_passes():
    code = "for (int i = 0; i &lt; n; i++) { total += values[i]; }\n" * 20
    page = f"<body><p>{ZH * 2}</p><pre>{code}</pre>"
    assert sniff(page.encode(), rules=SniffRules(languages=frozenset({"zh"}))) is None


def test_too_few_letters_are_told_and_all_pages_pass_without_rules():
    short = b"<p>404</p><p>Not found</p><script>" + b"x" * 999 + b"</script>"
    found = sniff(short, rules=SniffRules(min_letters=20))
    assert found is not None
    assert (found.reason, found.value, found.threshold) == ("sniffed_short", 8, 20)
    assert sniff(short, rules=SniffRules()) is None
    assert sniff(_page(ZH).encode(), rules=SniffRules(min_letters=20)) is None


def test_a_page_too_long_to_be_seen_whole_is_left_to_extraction():
    page = b"<p>" + TEXT["en"].encode() * 20_000
    assert sniff(page, rules=SniffRules(languages=frozenset({"zh"}))) is None


def test_text_is_what_stands_between_tags_outside_scripts_styles_and_comments():
    page = "<p>one</p><style>no</style> two <!-- <b>no</b> --><script>'<p>no</p>'</script>\n<noscript>three</noscript>"
    assert [run.strip() for run in text_runs(page)] == ["one", "two", "three"]
    assert text_runs("no tags at all") == []


def test_letters_are_counted_by_script():
    counts = letter_counts("ab ñ 磨坊，「の」。 ж λ 맷 12")
    assert {script: count for script, count in counts.items() if count} == {
        "han": 2, "kana": 1, "hangul": 1, "cyrillic": 1, "greek": 1, "latin": 3,
    }  # fmt: skip


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=200)
def test_any_bytes_can_be_looked_at(body):
    sniff(body, rules=SniffRules(languages=frozenset({"zh"}), min_letters=1))
    sniff(b"<p>" + body, rules=SniffRules(languages=frozenset({"en", "ja"})))


@pytest.mark.parametrize(
    "piece", [b"<script", b"<!--", b"<p>a", b"><", b"&#20013;", b"<script></script>", "磨".encode(), b"\xe9\xb9"]
)
def test_a_large_page_of_trouble_takes_linear_time(piece):
    body = b"<p>" + piece * ((1 << 20) // len(piece) - 1)
    rules = SniffRules(languages=frozenset({"zh", "en"}), min_letters=1)
    sniff(body[:1_000], rules=rules)
    begun = time.process_time()
    sniff(body, rules=rules)
    assert time.process_time() - begun < 1.0
