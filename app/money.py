"""Money in whole minor units, and the two roundings everything rests on. Pure; never a float."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor, lcm
from typing import Literal

Rounding = Literal["half_even", "half_up", "down", "up"]
"""How an exact amount becomes a whole one. `down` and `up` go towards and away from zero."""

# ISO 4217, list one, without funds and metals: the currencies whose minor unit is not a hundredth, then the others.
_EXPONENTS: dict[str, int] = (
    dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0)
    | dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3)
    | dict.fromkeys("CLF UYW".split(), 4)
    | dict.fromkeys(
        """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY
        COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS
        INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR
        MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD
        SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW
        ZWG""".split(),
        2,
    )
)


def is_currency(code: str) -> bool:
    """Whether `code` is an active ISO 4217 currency, in capitals."""
    return code in _EXPONENTS


def exponent(code: str) -> int:
    """Decimal digits of the minor unit: 2 for USD, 0 for JPY, 3 for KWD, 4 for CLF. KeyError for an unknown code."""
    return _EXPONENTS[code]


def show(amount: int, code: str) -> str:
    """`amount` minor units as a decimal for people, every minor digit printed: 1999 USD is "19.99"."""
    digits = exponent(code)
    if digits == 0:
        return f"{amount:,}"
    whole, part = divmod(abs(amount), 10**digits)
    return f"{'-' if amount < 0 else ''}{whole:,}.{part:0{digits}}"


def round_to_int(value: Fraction | int, mode: Rounding = "half_even") -> int:
    """`value` as a whole number. Halves go to the even neighbour, or away from zero in mode `half_up`."""
    if isinstance(value, int):
        return value
    if mode == "half_even":
        return round(value)
    magnitude = abs(value)
    if mode == "half_up":
        whole = floor(magnitude + Fraction(1, 2))
    else:
        whole = ceil(magnitude) if mode == "up" else floor(magnitude)
    return whole if value >= 0 else -whole


def rounded(numerator: int, denominator: int, mode: Rounding = "half_even") -> int:
    """`round_to_int` of a quotient of whole numbers, both positive or the first 0."""
    return numerator // denominator if mode == "down" else round_to_int(Fraction(numerator, denominator), mode)


def spread(total: int, weights: Sequence[Fraction | int]) -> list[int]:
    """`total` minor units shared in proportion to `weights`, to the last unit: the parts sum to `total`.

    Largest remainder (Hamilton's method): every part gets its exact share rounded down, and the units left over go
    to the largest fractions, ties to the earlier part. `total` and weights are not negative. If all weights are zero
    the total must be zero too, else ValueError: nobody could receive it.
    """
    scaled = _whole(weights)
    whole = sum(scaled)
    if whole == total:
        return scaled
    if whole == 0:
        if total:
            raise ValueError("nothing to spread the total over")
        return [0] * len(weights)
    exact = [divmod(total * weight, whole) for weight in scaled]
    parts = [part for part, _ in exact]
    if left := total - sum(parts):
        remainders = [remainder for _, remainder in exact]
        for i in sorted(range(len(parts)), key=remainders.__getitem__, reverse=True)[:left]:  # stable, also reversed
            parts[i] += 1
    return parts


def _whole(weights: Sequence[Fraction | int]) -> list[int]:
    """Whole numbers in the proportions of `weights`."""
    if set(map(type, weights)) <= {int}:
        return list(weights)  # type: ignore[arg-type]  # all of them are whole
    scale = lcm(*(weight.denominator for weight in weights))
    return [weight.numerator * (scale // weight.denominator) for weight in weights]
