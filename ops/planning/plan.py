"""`pixtral plan`: what a config takes on a cloud, whether it fits, and what that may cost.

Everything is arithmetic over the config, the model's shape, data sheets and prices. A price that
is not known is asked for by name, and every sum that needs it stays open until it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from ops.planning.bound import Bound, Mix, group_bound
from ops.planning.fit import Fit, decoder_fit
from ops.planning.machines import MACHINES, Cloud
from ops.planning.nodes import Pool, chosen, pools
from ops.planning.shapes import shape_of
from ops.problem import Problem
from serve_app.accounting.prices import ListedPrice, listed_price
from serve_app.config import Config

if TYPE_CHECKING:
    from serve_app.accounting.economics import Economics

_HOUR_US = 3_600_000_000
_SHARE = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found.

    Attributes:
        groups: least and most decoder groups.
        bound: of one group.
        utilisation: share of the bound that is really sold.
        unpriced: machines whose price must be given.
        least_usd_per_hour, most_usd_per_hour: of all nodes at the least and the most replicas;
            None while prices are missing.
        economics: of an hour at the most replicas; None while prices are missing.
        break_even: share of the bound from which on list prices pay for the machines.
    """

    cloud: Cloud
    config: Config
    pools: tuple[Pool, ...]
    fit: Fit
    groups: tuple[int, int]
    mix: Mix
    bound: Bound
    utilisation: Decimal
    price: ListedPrice
    unpriced: tuple[str, ...]
    least_usd_per_hour: Decimal | None
    most_usd_per_hour: Decimal | None
    economics: Economics | None
    break_even: Decimal | None


def make_plan(
    cloud: Cloud,
    config: Config,
    *,
    mix: Mix,
    utilisation: Decimal,
    machines: Mapping[str, str],
    prices: Mapping[str, Decimal],
) -> Plan:
    """Plan ``config`` on ``cloud``.

    Args:
        machines: by tier, where not the cloud's usual one.
        prices: dollars an hour by machine, over those that are known.

    Raises:
        Problem: not for GPUs; unknown model, tier or machine; a group that no machine holds.
        PlanError: the ranks do not cut the model evenly.
    """
    if config.decoder.device != "cuda" or config.decoder.simulate is not None:
        raise Problem("a plan is for decoders on GPUs: the config says otherwise (decoder.device)")
    for name in prices.keys() - MACHINES.keys():
        raise Problem(f"--usd-per-hour {name}: there is no such machine here")
    model = shape_of(config.model)
    tiers = chosen(cloud, machines)
    found = tuple(_priced(pool, prices) for pool in pools(config, tiers))
    fit = decoder_fit(config, model, tiers["decoder"])
    bound = group_bound(config, model, tiers["decoder"], mix, fit.kv_tokens)
    price = listed_price(config.model)
    scaling = config.decoder.autoscaling
    most = _total(found, lambda pool: pool.most)
    economics, break_even = None, None
    if most is not None:
        economics = _hour(scaling.max_replicas, bound, utilisation, most, price)
        break_even = _break_even(economics, scaling.max_replicas, bound)
    return Plan(
        cloud=cloud,
        config=config,
        pools=found,
        fit=fit,
        groups=(scaling.min_replicas, scaling.max_replicas),
        mix=mix,
        bound=bound,
        utilisation=utilisation,
        price=price,
        unpriced=tuple(dict.fromkeys(p.machine.name for p in found if _is_open(p))),
        least_usd_per_hour=_total(found, lambda pool: pool.least),
        most_usd_per_hour=most,
        economics=economics,
        break_even=break_even,
    )


def _priced(pool: Pool, prices: Mapping[str, Decimal]) -> Pool:
    price = prices.get(pool.machine.name)
    if price is None:
        return pool
    return replace(pool, machine=replace(pool.machine, usd_per_hour=price, source="given"))


def _is_open(pool: Pool) -> bool:
    return bool(pool.most) and pool.machine.usd_per_hour is None


def _total(found: Sequence[Pool], nodes: Callable[[Pool], int]) -> Decimal | None:
    total = Decimal(0)
    for pool in found:
        if _is_open(pool):
            return None
        total += nodes(pool) * (pool.machine.usd_per_hour or 0)
    return total


def _hour(
    groups: int, bound: Bound, utilisation: Decimal, usd_per_hour: Decimal, price: ListedPrice
) -> Economics:
    """An hour of every group at ``utilisation``, by the arithmetic of `usage economics`."""
    from serve_app.accounting.economics import reckon

    answers, prompts = (
        int(Decimal(per_s) * 3600 * groups * utilisation)
        for per_s in (bound.answer_tokens_per_s, bound.prompt_tokens_per_s)
    )
    earned = (
        prompts * price.price.input_nano_usd_per_token
        + answers * price.price.output_nano_usd_per_token
    )
    return reckon(0, _HOUR_US, usd_per_hour, prompts + answers, answers, 0, earned)


def _break_even(economics: Economics, groups: int, bound: Bound) -> Decimal | None:
    """None where nothing is sold or earned."""
    tokens = economics.break_even_tokens_per_hour
    if tokens is None:
        return None
    per_s = bound.answer_tokens_per_s + bound.prompt_tokens_per_s
    return (tokens / (Decimal(per_s) * 3600 * groups)).quantize(_SHARE)
