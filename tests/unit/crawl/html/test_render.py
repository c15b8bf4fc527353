from __future__ import annotations

import numpy as np

from pipelines.crawl.html.render import render
from pipelines.crawl.html.scan import scan

PAGE = (
    "<h2>磨坊</h2><p>石头慢慢转动。<ul><li>小麦<li>大麦<ul><li>春大麦</ul></ul><ol><li>一<li>二</ol>"
    "<table><tr><th>年<th>产量<tr><td>2019<td>七</table><pre>a = 1\n  b = 2</pre><blockquote>引用</blockquote>"
).encode()


def text(markup: bytes, *, markdown: bool = False) -> str:
    page = scan(markup)
    return render(page, np.ones(len(page.blocks), bool), markdown=markdown)


def test_plain_text_keeps_lists_rows_and_code_readable():
    assert text(PAGE).split("\n") == [
        *("磨坊", "石头慢慢转动。", "- 小麦", "- 大麦", "  - 春大麦", "1. 一", "2. 二"),
        *("年 | 产量", "2019 | 七", "a = 1", "  b = 2", "引用"),
    ]


def test_markdown_marks_headings_tables_code_and_quotes():
    made = text(PAGE, markdown=True)
    assert "\n## 磨坊\n" in f"\n{made}"
    assert "| 年 | 产量 |\n| --- | --- |\n| 2019 | 七 |" in made
    assert "```\na = 1\n  b = 2\n```" in made
    assert "> 引用" in made


def test_a_table_that_lays_out_the_page_gives_paragraphs():
    made = text(b"<table><tr><td><p>left one<p>left two<td>" + b"long " * 200 + b"</table>")
    assert made.split("\n")[:2] == ["left one", "left two"]
    assert "|" not in made


def test_only_kept_blocks_are_written():
    page = scan(b"<p>a<p>b<p>c")
    assert render(page, np.array([True, False, True])) == "a\nc"
