"""The patterns of personal data, each with the check that a match must pass.

They run on windows of a few hundred characters around what `pii_scan` finds, never on a whole text. Look-arounds are
ASCII ones: `\\b` has no border between Han and Latin characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from pipelines.filters import pii_checks as checks
from pipelines.filters.pii_scan import AT, COLONS, DOTTED, GROUPED, LONG, MESSENGER, PLATE

_MASKS = {
    "email": AT, "cn_id": LONG, "tw_id": LONG, "hk_id": GROUPED, "us_ssn": GROUPED, "cn_passport": LONG,
    "bank_card": LONG | GROUPED, "iban": LONG | GROUPED, "cn_company": LONG, "cn_mobile": LONG | GROUPED,
    "cn_landline": LONG | GROUPED, "phone": LONG | GROUPED, "cn_plate": PLATE, "qq": MESSENGER, "wechat": MESSENGER,
    "ipv4": DOTTED, "ipv6": COLONS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finder:
    """A kind, its pattern, what its match must be, and the group that is masked."""

    kind: str
    pattern: re.Pattern[str]
    is_right: Callable[[re.Match[str]], bool]
    group: int = 0

    @property
    def mask(self) -> int:
        """Finds of the pass over the bytes that call for this pattern."""
        return _MASKS[self.kind]


_NO_BEFORE = r"(?<![0-9A-Za-z_/=&%#])(?<![0-9][.\-])"
_NO_AFTER = r"(?![0-9A-Za-z_])(?![.\-][0-9])"


@cache
def finders() -> tuple[Finder, ...]:
    """Every kind, the surest first: of overlapping finds the first stays."""

    def compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
        return re.compile(pattern, flags)

    def always(match: re.Match[str]) -> bool:
        return True

    return (
        Finder(
            "email",
            compiled(
                r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@"
                r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9\-@])"
            ),
            checks.is_address,
        ),
        Finder("cn_id", compiled(r"(?<![0-9A-Za-z])[1-8][0-9]{16}[0-9Xx](?![0-9A-Za-z])"), checks.is_chinese_id),
        Finder(
            "cn_company", compiled(r"(?<![0-9A-Za-z])[159ANY][0-9A-HJ-NPQRTUWXY][0-9]{6}"
                     r"[0-9A-HJ-NPQRTUWXY]{10}(?![0-9A-Za-z])"),
            checks.is_company_code,
        ),
        Finder(
            "iban", compiled(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}"
                     r"(?: ?[A-Z0-9]{1,3})?(?![0-9A-Za-z])"),
            checks.is_iban,
        ),
        Finder(
            "bank_card", compiled(_NO_BEFORE + r"[2-6][0-9]{3}(?:[ \-]?[0-9]{4}){2}[ \-]?[0-9]{4}"
                     r"(?:[ \-]?[0-9]{1,3})?" + _NO_AFTER),
            checks.is_card,
        ),
        Finder(
            "bank_card", compiled(_NO_BEFORE + r"3[47][0-9]{2}[ \-]?[0-9]{6}[ \-]?[0-9]{5}" + _NO_AFTER), checks.is_card
        ),
        Finder(
            "cn_mobile",
            compiled(
                _NO_BEFORE + r"(?:(?:\+|00)?86[ \-]{0,2}|\(\+?86\) ?)?1[3-9][0-9](?:[ \-]?[0-9]{4}){2}" + _NO_AFTER
            ),
            checks.is_alone,
        ),
        Finder(
            "cn_landline",
            compiled(
                r"(?<![0-9A-Za-z_/=&%#.])(?<![0-9]-)(?:(?:\+|00)?86[ \-]?)?"
                r"(?:\(0?[1-9][0-9]{1,2}\) ?|0[1-9][0-9]{1,2}[ \-]{1,3})"
                r"[1-9][0-9]{2,3}[ \-]?[0-9]{4}(?:[ \-]{1,2}[0-9]{1,5}(?![0-9]))?" + _NO_AFTER
            ),
            checks.is_landline,
        ),
        Finder(
            "cn_landline",
            compiled(r"(?<![0-9A-Za-z_/=&%#.\-])0(?:10|2[0-57-9])[1-9][0-9]{7}(?![0-9A-Za-z_])"),
            checks.after_phone_word,
        ),
        Finder("us_ssn", compiled(r"(?<![0-9A-Za-z\-.])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9A-Za-z\-])"), checks.is_ssn),
        Finder(
            "phone", compiled(r"(?<![0-9A-Za-z_/=&%#+])\+[1-9][0-9]{0,2}(?:[ .\-]?\(?[0-9]{1,5}\)?){2,6}" + _NO_AFTER),
            checks.is_international,
        ),
        Finder(
            "phone",
            compiled(
                r"(?<![0-9A-Za-z_/=&%#.])(?<![0-9]-)(?:\+?1[ \-.])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ \-.])"
                r"[2-9][0-9]{2}[ \-.][0-9]{4}" + _NO_AFTER
            ),
            checks.is_american,
        ),
        Finder(
            "phone",
            compiled(
                r"(?<![0-9A-Za-z_/=&%#.\-])(?:0[1-9][0-9] [0-9]{4} [0-9]{4}"
                r"|0[1-9][0-9]{2} [0-9]{3} [0-9]{4}|0[1-9][0-9]{3} [0-9]{6}"
                r"|0[1-9][0-9]{3} [0-9]{3} [0-9]{3})" + _NO_AFTER
            ),
            checks.is_ungrouped,
        ),
        Finder(
            "cn_passport", compiled(r"(?<![0-9A-Za-z])(?:[EGDSPK][0-9]{8}|[DSPEK][A-HJ-NP-Z][0-9]{7}"
                     r"|[PS][0-9]{7}|1[45][0-9]{7})(?![0-9A-Za-z])"),
            checks.after_passport_word,
        ),
        Finder("tw_id", compiled(r"(?<![0-9A-Za-z])[A-Z][1289][0-9]{8}(?![0-9A-Za-z])"), checks.is_taiwan_id),
        Finder("hk_id", compiled(r"(?<![0-9A-Za-z])[A-Z]{1,2}[0-9]{6}\([0-9A]\)"), checks.is_hong_kong_id),
        Finder(
            "cn_plate",
            compiled(
                r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z] ?[·•・\-]? ?"
                r"(?:[DF][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[DF]|[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9挂学警港澳])(?![0-9A-Za-z])"
            ),
            checks.is_plate,
        ),
        Finder(
            "qq",
            compiled(
                r"(?<![A-Za-z0-9])(?:QQ|扣扣|企鹅)(?:交流|讨论|技术|官方)?"
                r"(?:号码|群号|群|号|帐号|账号|联系)? ?(?:ID)? ?[:是为]? ?"
                r"([1-9][0-9]{4,10})(?![0-9A-Za-z@.])", re.IGNORECASE,
            ),
            always, 1,
        ),
        Finder(
            "wechat",
            compiled(
                r"(?:微信|薇信|(?<![A-Za-z])(?:wechat|weixin|vx)|V信)"
                r"((?:号码|帐号|账号|号|同号)? ?(?:ID)? ?[:是为]{0,2} ?)"
                r"([A-Za-z][A-Za-z0-9_\-]{5,19})(?![A-Za-z0-9_\-@.])", re.IGNORECASE,
            ),
            checks.is_wechat, 2,
        ),
        Finder(
            "ipv4",
            compiled(r"(?<![0-9A-Za-z._\-/])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_])(?!\.[0-9])(?!-[0-9A-Za-z])"),
            checks.is_public_ipv4,
        ),
        Finder(
            "ipv4", compiled(r"(?<=//)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_])(?!\.[0-9])"), checks.is_public_ipv4,
        ),
        Finder(
            "ipv6", compiled(r"(?<![0-9A-Za-z:._])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:])"),
            checks.is_public_ipv6,
        ),
    )  # fmt: skip
