"""Money as integers: nano-dollars (1e-9 USD) inside, exact decimal strings outside. No floats.

Strings, because JavaScript loses exactness in integers past $9.0 million.
"""

from __future__ import annotations

import re

from serve_app.errors import InvalidRequest

CURRENCY = "USD"
NANO_PER_USD = 10**9
_PER_TOKENS = 1_000_000
_DIGITS = 9
_AMOUNT = re.compile(rf"(-?)([0-9]{{1,9}})(?:\.([0-9]{{1,{_DIGITS}}}))?", re.ASCII)
_ECHO_CHARS = 40


def format_usd(nano_usd: int) -> str:
    """The exact amount in dollars, without exponent or idle zeros.

    >>> format_usd(8_450_000), format_usd(150), format_usd(2_000_000_000), format_usd(0)
    ('0.00845', '0.00000015', '2', '0')
    """
    whole, fraction = divmod(abs(nano_usd), NANO_PER_USD)
    digits = f"{whole}.{fraction:0{_DIGITS}d}".rstrip("0").rstrip(".")
    return f"-{digits}" if nano_usd < 0 else digits


def parse_usd(text: str, *, param: str) -> int:
    """Nano-dollars of a decimal string: the inverse of ``format_usd``, below a billion dollars.

    >>> parse_usd("12.50", param="budget_usd"), parse_usd("0.00000015", param="price")
    (12500000000, 150)

    Raises:
        InvalidRequest: naming ``param``; nothing is ever rounded.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise InvalidRequest(
            f"{param}: {text[:_ECHO_CHARS]!r} is no amount in dollars; write it as 12.50, "
            f"below a billion and with {_DIGITS} decimals at most",
            param=param,
        )
    sign, whole, fraction = match.groups(default="")
    nano_usd = int(whole) * NANO_PER_USD + int(fraction.ljust(_DIGITS, "0"))
    return -nano_usd if sign else nano_usd


def nano_usd_per_token(usd_per_million: str, *, param: str) -> int:
    """A price per token of one that is quoted per million tokens.

    >>> nano_usd_per_token("0.15", param="input")
    150

    Raises:
        InvalidRequest: naming ``param``: negative, or no whole number of nano-dollars per token.
    """
    nano_usd, rest = divmod(parse_usd(usd_per_million, param=param), _PER_TOKENS)
    if rest:
        raise InvalidRequest(
            f"{param}: ${usd_per_million} per million tokens is no whole number of nano-dollars "
            "per token; use three decimals at most",
            param=param,
        )
    if nano_usd < 0:
        raise InvalidRequest(f"{param}: {usd_per_million} is below zero", param=param)
    return nano_usd


def usd_per_million(nano_usd_per_token: int) -> str:
    """How a price per token is quoted.

    >>> usd_per_million(2_000)
    '2'
    """
    return format_usd(nano_usd_per_token * _PER_TOKENS)
