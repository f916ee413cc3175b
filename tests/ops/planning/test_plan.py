import json
import re
from decimal import Decimal

import pytest
import yaml
from typer.testing import CliRunner

from ops import cli
from ops.planning.bound import Mix, decoder_work, group_bound
from ops.planning.fit import decoder_fit
from ops.planning.machines import MACHINES
from ops.planning.shapes import RELEASED, shape_of
from ops.settings import PROFILES
from serve_app.config import load_config
from shards.roofline import ROOFLINES, pixtral_large
from tests.ops.fakes import PIXTRAL_12B, PIXTRAL_LARGE, write_model

LARGE = PROFILES / "pixtral-large-bf16-4xa100.yaml"
# Three groups on two machines of two.
THREE_GROUPS = LARGE.read_text().replace(
    "max_replicas: 1, target_ongoing_requests: 48", "max_replicas: 3, target_ongoing_requests: 48"
)
AWS_PRICES = ("m7i.2xlarge=0.4", "m7i.xlarge=0.2", "m7i.4xlarge=0.8")


def plan(*words):
    return CliRunner().invoke(cli.app, ["plan", *map(str, words)], catch_exceptions=False)


def priced(*words):
    asked = [word for price in AWS_PRICES for word in ("--usd-per-hour", price)]
    return json.loads(plan("--cloud", "aws", "--json", *asked, *words).stdout)


def refused(*words):
    result = plan(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


def test_the_shapes_are_those_of_the_releases():
    assert RELEASED == {"pixtral-12b": PIXTRAL_12B, "pixtral-large": PIXTRAL_LARGE}


def test_a_checkpoint_that_is_there_wins_over_its_name(tmp_path):
    write_model(tmp_path / "Pixtral-Large-own")
    model = load_config(None, {"model.path": str(tmp_path / "Pixtral-Large-own")}).model
    assert shape_of(model).text.dim == 96


def test_the_bound_is_the_rooflines():
    """Alone, an answer comes as fast as weights and its own cache can be read: 33 tokens/s."""
    assert decoder_work(PIXTRAL_LARGE, 2) == pixtral_large(2)
    machine, config = MACHINES["a2-ultragpu-4g"], load_config(LARGE)
    bound = group_bound(config, PIXTRAL_LARGE, machine, Mix(1, 1), kv_tokens=10_000)
    work, hardware = pixtral_large(2), ROOFLINES["pixtral-large-bf16-4xa100"].hardware
    alone = hardware.bytes_per_s / (work.weight_bytes + 2 * work.kv_bytes_per_token)
    assert bound.alone_tokens_per_s == pytest.approx(alone)
    assert 33 < alone < 34


def test_more_side_by_side_than_the_cache_holds_is_not_counted():
    machine, config = MACHINES["a2-ultragpu-4g"], load_config(LARGE)
    few = group_bound(config, PIXTRAL_LARGE, machine, Mix(1500, 500), kv_tokens=7_999)
    assert few.batch == 3
    many = group_bound(config, PIXTRAL_LARGE, machine, Mix(1500, 500), kv_tokens=10**9)
    assert many.batch == config.decoder.max_batch_sequences
    assert many.answer_tokens_per_s > few.answer_tokens_per_s


def test_pcie_is_slower_than_nvlink():
    config, mix = load_config(LARGE), Mix(1500, 300)
    sxm, pcie = (
        group_bound(config, PIXTRAL_LARGE, MACHINES[name], mix, 100_000)
        for name in ("Standard_ND96amsr_A100_v4", "Standard_NC96ads_A100_v4")
    )
    assert pcie.alone_tokens_per_s < sxm.alone_tokens_per_s


def test_prompts_take_their_time_from_the_answers():
    """One request after the other: its prefill, then a step for each token of its answer."""
    machine = MACHINES["a2-ultragpu-4g"]
    config = load_config(LARGE, {"decoder.max_batch_sequences": 1})
    bound = group_bound(config, PIXTRAL_LARGE, machine, Mix(4000, 100), kv_tokens=10_000)
    work, hardware = pixtral_large(2), ROOFLINES["pixtral-large-bf16-4xa100"].hardware
    prefill_s = (
        4000 * work.flops_per_token / hardware.flops_per_s
        + 4000 * work.kv_bytes_per_token / hardware.bytes_per_s
    )
    answer_s = 100 / bound.alone_tokens_per_s
    assert bound.answer_tokens_per_s == pytest.approx(100 / (prefill_s + answer_s))
    assert bound.prompt_tokens_per_s == pytest.approx(4000 / (prefill_s + answer_s))


def test_a_node_holds_no_more_groups_than_its_cpus_do(tmp_path):
    """An p4de.24xlarge has GPUs for two groups and 96 vCPUs, of which these want 61 each."""
    file = tmp_path / "hungry.yaml"
    config = yaml.safe_load(LARGE.read_text())
    config["decoder"]["cpus_per_rank"] = 15
    file.write_text(yaml.safe_dump(config))
    (decoder,) = (tier for tier in priced("--config", file)["tiers"] if tier["tier"] == "decoder")
    assert decoder["replicas_per_node"] == 1


def test_the_fit_adds_up_and_knows_its_limit():
    config, machine = load_config(LARGE), MACHINES["a2-ultragpu-4g"]
    fit = decoder_fit(config, PIXTRAL_LARGE, machine)
    assert fit.weights == pytest.approx(61.4e9, rel=0.01)
    assert fit.kv_tokens == 154_896  # whole blocks of the 154,903 tokens of the profile
    assert fit.vision > 2 * 1.3e9
    assert fit.fits
    more = load_config(LARGE, {"decoder.kv_cache_bytes": 16 * 2**30})
    assert not decoder_fit(more, PIXTRAL_LARGE, machine).fits


def test_nodes_of_every_tier(tmp_path):
    file = tmp_path / "three.yaml"
    file.write_text(THREE_GROUPS)
    tiers = {tier["tier"]: tier for tier in priced("--config", file)["tiers"]}
    assert list(tiers) == ["head", "gateway", "preprocess", "decoder"]
    decoder = tiers["decoder"]
    assert (decoder["machine"], decoder["replicas_per_node"]) == ("p4de.24xlarge", 2)
    assert (decoder["min_nodes"], decoder["max_nodes"]) == (1, 2)


def test_vision_on_gpus_of_its_own_takes_machines_of_its_own(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(LARGE.read_text().replace("num_gpus: 0.1", "num_gpus: 1"))
    result = json.loads(plan("--cloud", "gcp", "--config", file, "--json").stdout)
    (vision,) = [tier for tier in result["tiers"] if tier["tier"] == "vision"]
    assert vision["machine"] == "g2-standard-8"
    assert result["fit"]["vision_bytes"] == 0


def test_the_sums(tmp_path):
    file = tmp_path / "three.yaml"
    file.write_text(THREE_GROUPS)
    found = priced("--config", file, "--utilisation", "0.5")
    nodes = {tier["tier"]: tier["max_nodes"] for tier in found["tiers"]}
    assert nodes == {"head": 1, "gateway": 1, "preprocess": 1, "decoder": 2}
    hour = Decimal("0.4") + Decimal("0.2") + Decimal("0.8") + 2 * Decimal("27.447")
    assert Decimal(found["usd_per_hour"]["ceiling"]) == hour
    assert Decimal(found["usd_per_month_ceiling"]) == hour * 730
    bound = found["bound_per_group"]
    per_hour = 3 * 0.5 * 3600 * (bound["answer_tokens_per_s"] + bound["prompt_tokens_per_s"])
    expected = float(hour) / per_hour * 1e6
    assert float(found["usd_per_million_tokens"]) == pytest.approx(expected, rel=1e-3)
    # Three groups sell at $2 in and $6 out; break-even is where that is the hour's cost.
    full = 3 * 3600 * (bound["answer_tokens_per_s"] * 6 + bound["prompt_tokens_per_s"] * 2) / 1e6
    assert float(found["break_even_utilisation"]) == pytest.approx(float(hour) / full, rel=1e-2)


def test_half_the_load_costs_twice_as_much_a_token():
    whole, half = (
        Decimal(priced("--utilisation", share)["usd_per_million_tokens"]) for share in ("1", "0.5")
    )
    assert float(half) == pytest.approx(2 * float(whole), rel=1e-6)


def test_prices_that_are_not_known_are_asked_for_by_name():
    found = json.loads(plan("--cloud", "gcp", "--json").stdout)
    assert found["prices_missing"] == ["n2-standard-8", "n2-standard-16", "a2-ultragpu-4g"]
    assert found["usd_per_hour"] == {"min": None, "ceiling": None}
    assert found["usd_per_million_tokens"] is None
    text = plan("--cloud", "gcp").stdout
    for name in found["prices_missing"]:
        assert f"--usd-per-hour {name}=…" in text
    assert "$" not in text


def test_what_a_person_reads():
    asked = [word for price in AWS_PRICES for word in ("--usd-per-hour", price)]
    text = plan("--cloud", "aws", *asked).stdout
    assert "NOT a measurement" in text
    assert "two groups of four ranks a node" in text
    assert re.search(r"a month at the most \(ceiling\) +\$[0-9,]+\.[0-9]{2}", text)
    assert re.search(r"breaks even at [0-9.]+% of the bound", text)
    assert "\n".join(line.rstrip() for line in text.splitlines()) == text.rstrip("\n")


def test_a_model_that_does_not_fit_fails(tmp_path):
    file = tmp_path / "large.yaml"
    file.write_text(LARGE.read_text().replace("13958643712", "23958643712"))
    result = plan("--cloud", "gcp", "--config", file)
    assert result.exit_code == 1
    assert "TOO MUCH" in result.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--cloud", "ibm"), "--cloud ibm: must be one of gcp, aws, azure"),
        (("--cloud", "gcp", "--utilisation", "30"), "above 0 and up to 1"),
        (("--cloud", "gcp", "--utilisation", "nan"), "above 0 and up to 1"),
        (("--cloud", "gcp", "--usd-per-hour", "20"), "write --usd-per-hour MACHINE=PRICE"),
        (("--cloud", "gcp", "--usd-per-hour", "x=20"), "x: there is no such machine"),
        (("--cloud", "gcp", "--usd-per-hour", "a2-ultragpu-4g=-1"), "write an amount"),
        (("--cloud", "gcp", "--machine", "decoder=p4de.24xlarge"), "known on gcp are"),
        (("--cloud", "gcp", "--machine", "pod=x"), "the tiers are head"),
        (("--cloud", "gcp", "--machine", "decoder=a2-ultragpu-1g"), "needs 4 GPUs"),
        (("--cloud", "gcp", "--machine", "decoder=g2-standard-8"), "needs 4 GPUs"),
        (("--cloud", "gcp", "--config", PROFILES / "local.yaml"), "model.path"),
    ],
)
def test_what_cannot_be_planned_is_one_line(words, reason):
    assert reason in refused(*words)
