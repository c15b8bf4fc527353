"""Is a string that looks like personal data such: check digits, dates, context. All take a match, all are pure."""

from __future__ import annotations

import ipaddress
import re
from datetime import date

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_COMPANY = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_COMPANY_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
_PROVINCES = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
        "83",
    ]
)
_TAIWAN_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"  # in the order of their numbers, 10 to 35
_CARD_WORD = re.compile(
    r"卡|账号|帐号|账户|帐户|户头|开户|银行|支付|收款|転|帳|card|acct|account|visa|master|amex|credit|debit|iban|pay",
    re.I,
)
# first digits: Visa, Mastercard and Maestro, UnionPay and Discover, Amex, Diners and JCB, Mir
_ISSUER = re.compile(r"4|5[0-8]|6[0-9]|3[4578]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|220[0-4]")
_ORDER_WORD = re.compile(
    r"订单|单号|編號|编号|流水|运单|快递|物流|序列|条码"
    r"|order|invoice|tracking|serial|ticket|isbn|part|sku|uid|id\s*[:=]",
    re.I,
)
_PHONE_WORD = re.compile(
    r"电话|電話|座机|固话|热线|熱線|传真|傳真|手机|手機|联系|聯絡|tel|phone|fax|call|mobile|cell|dial|hotline|contact",
    re.I,
)
_PASSPORT_WORD = re.compile(r"护照|護照|passport|通行证|通行證", re.I)
_VERSION_WORD = re.compile(
    r"(?:version|ver|release|revision|rev|build|firmware|patch|update|upgrade|section|chapter|clause|v"
    r"|版本|版本号|版|固件|升级到?|章|节|條|条)\s*[.:#]?\s*$",
    re.I,
)
_ADDRESS_WORD = re.compile(
    r"(?:\bip|ipv4|地址|位址|主机|主機|服务器|伺服器|登录|登入|访问"
    r"|from|host|server|address|addr|ping|dns|client|gateway|proxy)"
    r"[^0-9A-Za-z]{0,6}$",
    re.I,
)
_NOT_DOMAINS = frozenset(
    {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "html", "py", "md", "json", "txt"}
)
_TOLL_FREE = frozenset({"400", "800", "833", "844", "855", "866", "877", "888"})
_ROBOTS = frozenset({"git", "hg", "svn", "ssh"})


def _before(match: re.Match[str], characters: int = 30) -> str:
    """What stands before a match on its line."""
    return match.string[max(0, match.start() - characters) : match.start()].rpartition("\n")[2]


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def is_address(match: re.Match[str]) -> bool:
    """An e-mail address: no file name such as `logo@2x.png`, no `git@host:path`, no two dots in a row."""
    local, _, domain = match[0].rpartition("@")
    if domain.rpartition(".")[2].lower() in _NOT_DOMAINS or ".." in local or local.endswith("."):
        return False
    return not (local in _ROBOTS and match.string[match.end() : match.end() + 1] in (":", "/"))


def is_chinese_id(match: re.Match[str]) -> bool:
    """GB 11643: province, a date that exists, ISO 7064 MOD 11-2 check digit."""
    number = match[0].upper()
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    if number[:2] not in _PROVINCES or not 1850 <= born.year <= 2100:
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number, _ID_WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == number[17]


def is_company_code(match: re.Match[str]) -> bool:
    """GB 32100: unified social credit code, check character mod 31."""
    total = sum(_COMPANY.index(c) * weight for c, weight in zip(match[0], _COMPANY_WEIGHTS, strict=False))
    return _COMPANY[(31 - total % 31) % 31] == match[0][17]


def is_iban(match: re.Match[str]) -> bool:
    """ISO 13616: 15 to 34 characters, mod 97."""
    code = match[0].replace(" ", "")
    if not 15 <= len(code) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def luhn(digits: str) -> bool:
    """ISO 7812's check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_card(match: re.Match[str]) -> bool:
    """15 to 19 digits with Luhn's check, and either a word about cards before them or a card's form alone.

    That form is groups of four that begin as an issuer's numbers do (ISO/IEC 7812) and stand in no longer row of
    numbers: a table of sizes passes Luhn's check once in ten rows.
    """
    digits = _digits(match[0])
    if not 15 <= len(digits) <= 19 or not luhn(digits) or len(set(digits)) < 2:
        return False
    before = _before(match, 40)
    if _ORDER_WORD.search(before[-14:]):
        return False
    if _CARD_WORD.search(before):
        return True
    after = match.string[match.end() : match.end() + 3]
    in_a_row = re.search(r"[0-9][ \-]{1,2}$", before) or re.match(r"[ \-]{1,2}[0-9]", after)
    return len(digits) < len(match[0]) and not in_a_row and bool(_ISSUER.match(digits))


def is_alone(match: re.Match[str]) -> bool:
    """A mobile number that is no part of a longer number written in groups, nor named as an order's."""
    before = match.string[max(0, match.start() - 6) : match.start()]
    after = match.string[match.end() : match.end() + 6]
    grouped = len(_digits(match[0])) < len(match[0].lstrip("+"))
    if grouped and (re.search(r"[0-9][ \-]$", before) or re.match(r"[ \-][0-9]{3}", after)):
        return False
    return not _ORDER_WORD.search(_before(match, 12)) or bool(_PHONE_WORD.search(_before(match, 12)))


def is_landline(match: re.Match[str]) -> bool:
    """Chinese area code and 7 or 8 digits: 010 and 02x have 8."""
    digits = re.match(r"(?:(?:\+|00)?86[ \-]?)?\(?0?([1-9][0-9]{1,2})\)?[ \-]*([0-9]{3,4}[ \-]?[0-9]{4})", match[0])
    if digits is None:
        return False
    area, number = digits[1], _digits(digits[2])
    if area == "10" or (len(area) == 2 and area[0] == "2"):
        return area != "26" and len(number) == 8 and match[0].count(" ") < 2
    return len(area) == 3 and area[0] in "3456789" and match[0].count(" ") < 2


def after_phone_word(match: re.Match[str]) -> bool:
    """A word about telephones stands before."""
    return bool(_PHONE_WORD.search(_before(match)))


def is_ssn(match: re.Match[str]) -> bool:
    """US social security number: no part is all zeros, the first is not 666."""
    area, group, serial = match[0].split("-")
    return area not in ("000", "666") and group != "00" and serial != "0000"


def is_international(match: re.Match[str]) -> bool:
    """E.164: 8 to 15 digits after the plus."""
    return 8 <= len(_digits(match[0])) <= 15 and match[0].count("(") == match[0].count(")")


def is_ungrouped(match: re.Match[str]) -> bool:
    """No part of a longer number written in groups."""
    before, after = match.string[max(0, match.start() - 3) : match.start()], match.string[match.end() : match.end() + 4]
    return not re.search(r"[0-9] $", before) and not re.match(r" [0-9]{2,}", after)


def is_american(match: re.Match[str]) -> bool:
    """North American number that is no toll-free one; parted by blanks or dots, it needs a word about telephones."""
    if _digits(match[0]).removeprefix("1")[:3] in _TOLL_FREE:
        return False
    sure = "(" in match[0] or match[0].count("-") >= 2
    return sure or bool(_PHONE_WORD.search(_before(match)))


def after_passport_word(match: re.Match[str]) -> bool:
    """A word about passports stands before."""
    return bool(_PASSPORT_WORD.search(_before(match)))


def is_taiwan_id(match: re.Match[str]) -> bool:
    """Taiwan's identity number, check digit mod 10."""
    letter = _TAIWAN_LETTERS.index(match[0][0]) + 10
    total = letter // 10 + letter % 10 * 9
    total += sum(int(d) * w for d, w in zip(match[0][1:], (8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True))
    return total % 10 == 0


def is_hong_kong_id(match: re.Match[str]) -> bool:
    """Hong Kong's identity number, check digit mod 11."""
    letters, number, check = re.match(r"([A-Z]{1,2})([0-9]{6})\((.)\)", match[0]).groups()  # type: ignore[union-attr]
    values = [36, *(ord(c) - 55 for c in letters)][-2:] + [int(d) for d in number]
    total = sum(v * w for v, w in zip(values, range(9, 1, -1), strict=True))
    return (11 - total % 11) % 11 == (10 if check == "A" else int(check))


def is_plate(match: re.Match[str]) -> bool:
    """A Chinese number plate has a digit, mostly several."""
    return len(_digits(match[0])) >= 2


def is_wechat(match: re.Match[str]) -> bool:
    """A WeChat name after a colon or 号, or one that holds a digit or an underscore."""
    return bool(match[1].strip()) or bool(re.search(r"[0-9_]", match[2]))


def is_public_ipv4(match: re.Match[str]) -> bool:
    """Octets in range, no private, loopback, link-local, multicast or reserved address, no version number."""
    octets = [int(part) for part in match[0].split(".")]
    if any(o > 255 for o in octets) or any(len(p) > 1 and p[0] == "0" for p in match[0].split(".")):
        return False
    first, second = octets[:2]
    private = first in (0, 10, 127) or first >= 224 or (first == 172 and 16 <= second < 32)
    private |= (first, second) in ((192, 168), (169, 254)) or (first == 100 and 64 <= second < 128)
    if private or (octets[3] == 0 and octets[2] == 0):
        return False
    before = _before(match, 40)
    if _VERSION_WORD.search(before):
        return False
    return len(match[0]) - 3 >= 8 or bool(_ADDRESS_WORD.search(before))


def is_public_ipv6(match: re.Match[str]) -> bool:
    """An address outside loopback, link-local, unique-local, multicast and unspecified ones."""
    if ":::" in match[0] or len(match[0]) < 6:
        return False
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return False
    first = int(address) >> 112
    return not (first >= 0xFE00 or 0xFC00 <= first <= 0xFDFF or int(address) >> 32 in (0, 0xFFFF) or first < 0x2000)
