import pytest

from serve_app.config import ConfigError, load_config


@pytest.mark.parametrize("written", ["off", '"off"', "team", "shared"])
def test_a_prefix_cache_is_switched_off_however_yaml_reads_it(tmp_path, written):
    file = tmp_path / "config.yaml"
    file.write_text(f"model: {{path: /models/m}}\ndecoder: {{prefix_cache: {written}}}\n")
    assert load_config(file).decoder.prefix_cache == written.strip('"')


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("decoder.prefix_cache", "everybody"),
        ("decoder.prefix_cache", True),
        ("decoder.max_drafts", 9),
        ("vision.feature_cache_bytes", -1),
    ],
)
def test_what_cannot_be_is_refused_by_key(key, value):
    with pytest.raises(ConfigError, match=key):
        load_config(None, {"model.path": "/models/m", key: value})


@pytest.mark.parametrize(("tier", "target"), [("gateway", 128), ("preprocess", 2), ("decoder", 16)])
def test_a_tier_that_may_grow_is_still_scaled_to_its_own_target(tier, target):
    grows = {"model.path": "/models/m", f"{tier}.autoscaling": {"downscale_delay_s": 5}}
    for config in (load_config(None, grows), load_config(None, {"model.path": "/models/m"})):
        assert getattr(config, tier).autoscaling.target_ongoing_requests == target
