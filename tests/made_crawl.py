"""Small crawls made up for tests: pages that pass the rules, in both languages, different from each other."""

from __future__ import annotations

import random
from pathlib import Path

from tests.sample.warc_writer import crawl_file, response_record

_EN = {
    "who": ["miller", "baker", "farmer", "sailor", "clerk", "painter", "weaver", "judge", "teacher", "smith"],
    "what": ["wheel", "ladder", "ledger", "lantern", "kettle", "barrel", "window", "bridge", "orchard", "harvest"],
    "did": ["repaired", "sold", "counted", "painted", "forgot", "measured", "carried", "hid", "borrowed", "praised"],
    "where": ["valley", "harbour", "market", "tower", "meadow", "cellar", "station", "island", "village", "forest"],
    "when": ["monday", "spring", "dawn", "autumn", "noon", "winter", "sunday", "harvest", "midnight", "summer"],
    "how": ["slowly", "gladly", "quietly", "twice", "alone", "badly", "carefully", "early", "together", "often"],
}
_ZH = {
    "who": ["掌柜", "船夫", "画师", "农户", "木匠", "学徒", "先生", "铁匠", "郎中", "账房"],
    "what": ["水轮", "梯子", "账本", "灯笼", "茶壶", "木桶", "窗户", "石桥", "果园", "收成"],
    "did": ["修好了", "卖掉了", "数了一遍", "忘记了", "量过了", "搬走了", "藏起来了", "借来了", "夸奖过", "画下了"],
    "where": ["山谷里", "码头上", "集市边", "塔楼下", "草地旁", "地窖里", "车站外", "小岛上", "村子里", "树林中"],
    "when": ["春天", "清晨", "秋天", "中午", "冬天", "夜里", "夏天", "傍晚", "年底", "正月"],
    "how": ["慢慢地", "高兴地", "悄悄地", "独自", "小心地", "一早", "一起", "常常", "匆匆", "仔细"],
}


def sentences(rng: random.Random, language: str, count: int = 14) -> list[str]:
    """Sentences that pass for prose."""
    out = []
    for _ in range(count):
        if language == "zh":
            a, b = ({k: rng.choice(v) for k, v in _ZH.items()} for _ in range(2))
            out.append(
                f"{a['when']}，{a['where']}的{a['who']}{a['how']}把{a['what']}{a['did']}，"
                f"而{b['where']}那位{b['who']}到了{b['when']}才{b['how']}提起{b['what']}。"
            )
        else:
            a, b = ({k: rng.choice(v) for k, v in _EN.items()} for _ in range(2))
            out.append(
                f"In the {a['where']} the {a['who']} {a['how']} {a['did']} the {a['what']} of {a['when']}, "
                f"and that {b['who']} with a {b['what']} {b['how']} {b['did']} it in the {b['where']} by {b['when']}."
            )
    return out


def page_html(lines: list[str], title: str = "Page") -> bytes:
    """The sentences as an article."""
    body = "".join(f"<p>{line}</p>" for line in lines)
    html = f"<html><head><title>{title}</title></head><body><article><h1>{title}</h1>{body}</article></body></html>"
    return html.encode()


def page(seed: int, language: str | None = None) -> bytes:
    """One page; Chinese for even seeds."""
    language = language or ("zh", "en")[seed % 2]
    return page_html(sentences(random.Random(f"page {seed}"), language), f"Page {seed}")


def write_crawl(folder: Path, files: dict[str, list[tuple[str, bytes]]], tail: bytes = b"") -> str:
    """Crawl files {name: [(url, html)]} in a folder; the pattern that names them."""
    for name, pages in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(crawl_file(*(response_record(url, html) for url, html in pages)) + tail)
    return str(folder / "*.warc.gz")


def pages(seeds: range, host: str = "mill") -> list[tuple[str, bytes]]:
    """(url, html) for each seed."""
    return [(f"https://{host}{seed % 7}.example/{seed}", page(seed)) for seed in seeds]
