"""Codes of vouchers: derived from the voucher's id and the pepper, so that none is stored and a retry can say it again.

A code has 19 symbols of Crockford's base 32 (95 bits) and a check symbol, shown in groups of four. Pure.
"""

import hashlib
import hmac
import re
from uuid import UUID

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O, U. People may write them for 1, 1 and 0."""

_SYMBOLS = 19
_READ_AS = str.maketrans({"O": "0", "I": "1", "L": "1"})


def code_of(voucher_id: UUID, pepper: bytes) -> str:
    """The code of a voucher, in groups: `7Z3K-...`. Nobody can guess it without the pepper."""
    digest = hmac.new(pepper, b"voucher code of " + voucher_id.bytes, hashlib.sha256).digest()
    number = int.from_bytes(digest) >> len(digest) * 8 - 5 * _SYMBOLS
    symbols = "".join(ALPHABET[number >> 5 * place & 31] for place in reversed(range(_SYMBOLS)))
    return "-".join(re.findall("....", symbols + ALPHABET[_check(symbols)]))


def read_code(text: str) -> str | None:
    """A code as somebody typed it, in its one spelling without groups; None if it is not one or has a slip in it."""
    symbols = re.sub(r"[\s-]", "", text).upper().translate(_READ_AS)
    if len(symbols) != _SYMBOLS + 1 or not set(symbols) <= set(ALPHABET) or _check(symbols):
        return None
    return symbols


def hash_code(symbols: str, pepper: bytes) -> str:
    """What a voucher is found by: an HMAC of the code as `read_code` spells it, in hex."""
    return hmac.new(pepper, b"voucher found by " + symbols.encode(), hashlib.sha256).hexdigest()


def _check(symbols: str) -> int:
    """H. M. Damm's check digit over the field of 32 elements: finds every wrong symbol and every swap of neighbours.

    0 for symbols that end in the right check symbol.
    """
    interim = 0
    for symbol in symbols:
        interim = (interim ^ ALPHABET.index(symbol)) << 1
        if interim & 32:
            interim ^= 0b100101  # x^5 + x^2 + 1
    return interim
