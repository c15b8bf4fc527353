"""Made-up pages and lines that a corpus should lose: spam, menus, stubs.  Ours, no licence needed.

Everything is drawn from fixed word lists by a seeded generator, so that a build gives the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable

_GAMES = ["金球", "满堂彩", "大富翁", "好运来", "天天乐", "鸿运", "聚宝盆", "发发发"]
_PRIZES = ["彩金", "红包", "返水", "礼金", "奖池", "体验金"]
_VERBS = ["点击领取", "立即注册", "马上加入", "扫码关注", "免费试玩", "高额提现"]
_GOODS = ["watches", "handbags", "pills", "phone cases", "sneakers", "loans", "casino chips", "followers"]
_HYPE = ["CHEAP", "100% FREE", "best price", "no prescription", "limited offer", "click here", "act now", "guaranteed"]
_MENU = ["Home", "Products", "About us", "Contact", "Sitemap", "Login", "Register", "Help", "Terms", "Jobs", "Press"]
_MENU_ZH = ["首页", "产品中心", "关于我们", "联系方式", "网站地图", "登录", "注册", "帮助", "条款", "招聘", "新闻中心"]
_LATIN = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
    "incididunt",
    "ut",
    "labore",
    "et",
    "dolore",
    "magna",
    "aliqua",
    "enim",
    "ad",
    "minim",
    "veniam",
    "quis",
    "nostrud",
    "exercitation",
    "ullamco",
    "laboris",
    "nisi",
    "aliquip",
    "ex",
    "ea",
    "commodo",
]


def junk_pages(seed: int = 13) -> list[tuple[str, str, str]]:
    """(path on a made-up host, host, HTML) of each junk page."""
    rng = random.Random(seed)
    kinds: list[tuple[str, str, Callable[[random.Random], str]]] = [
        ("jinqiu", "金球娱乐 官方网站", lambda r: _paragraphs(r, 12, spam_line_zh)),
        ("caijin", "彩金天天送", lambda r: _paragraphs(r, 9, spam_line_zh)),
        ("hongbao", "红包大放送", lambda r: _repeat("点击这里领取大奖，今天注册马上送彩金。", 40)),
        ("seo", "上海 搬家 公司 电话 价格", lambda r: _paragraphs(r, 6, keyword_line_zh)),
        ("daohang", "网址导航", lambda r: _menu(r, _MENU_ZH, 60)),
        ("tingche", "域名停放", lambda r: "<p>此域名正在出售。</p>"),
        ("404", "页面不存在", lambda r: "<h1>404</h1><p>抱歉，您访问的页面不存在，请返回首页。</p>"),
        ("cheap", "Cheap watches online", lambda r: _paragraphs(r, 12, spam_line_en)),
        ("pills", "Order pills without a doctor", lambda r: _paragraphs(r, 9, spam_line_en)),
        ("buynow", "Buy now", lambda r: _repeat("Buy cheap watches here and get one free today. ", 40)),
        ("doorway", "plumber in your city", lambda r: _paragraphs(r, 6, keyword_line_en)),
        ("links", "Links", lambda r: _menu(r, _MENU, 60)),
        ("parked", "This domain is for sale", lambda r: "<p>This domain may be for sale.</p>"),
        ("lorem", "A new theme", lambda r: _repeat("Lorem ipsum dolor sit amet. ", 1) + _paragraphs(r, 8, latin_line)),
        ("shell", "App", lambda r: "<div id='root'></div><noscript>Please enable JavaScript.</noscript>"),
        ("cookies", "We value your privacy", lambda r: "<p>We use cookies. Accept all? Reject all?</p>"),
        ("numbers", "Statistics", lambda r: _repeat("1024 2048 4096 8192 16384 32768 65536. ", 30)),
        ("symbols", "### !!! ###", lambda r: _repeat("# hot ... # new ... # sale ... # now ... ", 30)),
    ]
    pages = []
    for host, title, make in kinds:
        body = f"<h1>{title}</h1>{make(rng)}"
        html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{body}</body></html>\n"
        pages.append(("/", f"www.{host}.example", html))
    return pages


def spam_line_zh(rng: random.Random) -> str:
    """One line of gambling spam."""
    game, prize, verb = rng.choice(_GAMES), rng.choice(_PRIZES), rng.choice(_VERBS)
    amount = rng.choice([8, 18, 58, 88, 188, 888])
    tail = rng.choice(["客服在线等你", "秒到账不限次", "老玩家都在这里", "信誉第一平台", "加微信送大礼"])
    first = f"{game}娱乐城{verb}{prize}{amount}元，{rng.choice(_VERBS)}，{tail}！"
    return first + f"{game}{prize}天天有，{verb}{rng.choice(_PRIZES)}！"


def spam_line_en(rng: random.Random) -> str:
    """One line of shop spam."""
    goods, hype = rng.choice(_GOODS), rng.sample(_HYPE, 3)
    price = rng.choice(["$9.99", "$19", "only $4", "70% off"])
    first = f"{hype[0]} {goods} {price}!!! {hype[1]} {goods} online, {hype[2]}, "
    return first + f"buy {goods} {price} today, order {goods} now"


def keyword_line_zh(rng: random.Random) -> str:
    """City and trade words strung together."""
    cities = rng.sample(["上海", "北京", "广州", "深圳", "成都", "杭州", "武汉", "西安", "南京", "重庆"], 6)
    trade = rng.choice(["搬家公司", "开锁公司", "疏通管道", "代办执照", "二手车回收"])
    return " ".join(f"{city}{trade}电话 {city}{trade}价格 {city}{trade}哪家好" for city in cities)


def keyword_line_en(rng: random.Random) -> str:
    """City and trade words strung together."""
    cities = rng.sample(["Springfield", "Riverton", "Lakeside", "Fairview", "Greenville", "Hillcrest", "Oakdale"], 5)
    trade = rng.choice(["plumber", "locksmith", "payday loan", "roof repair", "towing"])
    return " ".join(f"{trade} {city} cheap {trade} near {city} {city} {trade} reviews" for city in cities)


def latin_line(rng: random.Random) -> str:
    """Filler text."""
    return " ".join(rng.choice(_LATIN) for _ in range(40)).capitalize() + "."


def menu_line(rng: random.Random) -> str:
    """A page's navigation, flattened."""
    words = _MENU if rng.random() < 0.5 else _MENU_ZH
    return rng.choice([" | ", " > ", "  ", " · "]).join(rng.sample(words, 7))


def _paragraphs(rng: random.Random, count: int, line: Callable[[random.Random], str]) -> str:
    return "".join(f"<p>{' '.join(line(rng) for _ in range(2))}</p>" for _ in range(count))


def _repeat(text: str, times: int) -> str:
    return f"<p>{text * times}</p>"


def _menu(rng: random.Random, words: list[str], count: int) -> str:
    return "<ul>" + "".join(f"<li><a href='/{n}'>{rng.choice(words)}</a></li>" for n in range(count)) + "</ul>"
