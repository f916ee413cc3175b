"""The few shapes of PromQL that panels and rules are made of.

What may rightly be empty (no waste, no errors) is written so that it is 0: an empty panel then
always means a fault.
"""

from __future__ import annotations

# What the gateway's /metrics reads from the ledger; Ray's metrics begin with ray_.
_LEDGER = "pixtral_ledger_"


def total(series: str, by: str = "", window: str = "$__rate_interval") -> str:
    """Per second, summed."""
    return f"sum{_by(by)} ({_once(series, f'rate({series}[{window}])')})"


def grown(series: str, window: str, by: str = "") -> str:
    """How much a counter grew, summed."""
    return f"sum{_by(by)} ({_once(series, f'increase({series}[{window}])')})"


def summed(series: str, by: str = "") -> str:
    """Now, over all labels but ``by``."""
    return f"sum{_by(by)} ({_once(series, series)})"


def quantile(share: float, series: str, by: str = "", window: str = "$__rate_interval") -> str:
    """Of a histogram; NaN, a gap in a graph, while nothing was observed."""
    name, labels = _split(series)
    labelled = ", ".join(filter(None, [by, "le"]))
    rate = f"sum by ({labelled}) (rate({name}_bucket{labels}[{window}]))"
    return f"histogram_quantile({share}, {rate})"


def observed(series: str, by: str = "", window: str = "$__rate_interval") -> str:
    """Observations of a histogram per second."""
    name, labels = _split(series)
    return total(f"{name}_count{labels}", by, window)


def share(part: str, whole: str) -> str:
    """0 where the whole is 0 or neither exists."""
    return zero(f"({part}) / (({whole}) > 0)")


def zero(expression: str) -> str:
    """0 instead of nothing."""
    return f"({expression}) or vector(0)"


def where(series: str, **labels: str) -> str:
    """``where("x", route="chat", status="~5..")``: a leading ``~`` or ``!`` is the operator's."""
    matchers = []
    for key, value in labels.items():
        operator = value[0] if value[:1] in ("~", "!") else ""
        sign = {"": "=", "~": "=~", "!": "!="}[operator]
        matchers.append(f'{key}{sign}"{value.removeprefix(operator)}"')
    name, given = _split(series)
    inner = ", ".join([*filter(None, [given[1:-1]]), *matchers])
    return f"{name}{{{inner}}}"


def _once(series: str, expression: str) -> str:
    """Every gateway tells the same of the one ledger: counted once, however many are scraped."""
    ledgers = series.startswith(_LEDGER)
    return f"max without (instance, pod) ({expression})" if ledgers else expression


def _split(series: str) -> tuple[str, str]:
    name, brace, rest = series.partition("{")
    return name, brace + rest


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
