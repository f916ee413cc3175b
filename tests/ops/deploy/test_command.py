"""`pixtral deploy render` as a person meets it, and what it refuses."""

import copy
import json

import pytest
import yaml
from typer.testing import CliRunner

from ops.cli import app
from ops.deploy import accounts
from ops.deploy.deployed_config import as_yaml, config_map_name, deployed_config
from ops.deploy.examples import ENVIRONMENTS, examples
from ops.deploy.manifests import manifests
from ops.deploy.platform import Platform, load_platform
from ops.problem import Problem
from ops.settings import PROFILES
from serve_app.config import load_config, parse_config
from serve_app.errors import Conflict
from tests.ops.deploy.looking import leaves, of_kind, pods, ray_service
from tests.ops.deploy.platforms import (
    HOST,
    IMAGE,
    described,
    pairs,
    platforms,
    profiles,
    rendered,
)

LARGE = str(PROFILES / "pixtral-large-bf16-4xa100.yaml")
PLATFORM = str(ENVIRONMENTS / "aws-prod" / "workload" / "example.platform.json")


def run(*arguments):
    return CliRunner().invoke(app, ["deploy", "render", *arguments])


def test_it_prints_what_kubectl_takes(tmp_path):
    output = tmp_path / "manifests.yaml"
    done = run("--config", LARGE, "--platform", PLATFORM, "--image", IMAGE, "--output", str(output))
    assert done.exit_code == 0, done.output
    kinds = [each["kind"] for each in yaml.safe_load_all(output.read_text())]
    assert kinds.count("RayService") == 1
    assert kinds.index("ServiceAccount") < kinds.index("NetworkPolicy") < kinds.index("RayService")


def test_it_prints_what_serve_takes():
    done = run("--config", LARGE, "--format", "serve")
    assert done.exit_code == 0, done.output
    config = yaml.safe_load(done.output)
    assert config["applications"][0]["import_path"] == "serve_app.app:application"
    service = ray_service(rendered("pixtral-large-bf16-4xa100", "aws-prod"))
    assert done.output == service["spec"]["serveConfigV2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--config", LARGE), "4 GPUs, and a pod on the platform's any has 0"),
        (("--config", "/no/such.yaml"), "No such file"),
        (("--config", LARGE, "--platform", "/no/such.json"), "No such file"),
        (("--config", str(PROFILES / "local.yaml")), "model.path"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, says):
    done = run(*arguments)
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output


def changed(**pool):
    values = described("gcp-prod")
    for name, change in pool.items():
        values["pools"][name] |= change
    return Platform.model_validate(values)


@pytest.mark.parametrize(
    ("platform", "overrides", "says"),
    [
        (changed(), {"decoder.autoscaling": {"max_replicas": 9}}, "decoder.*9, .* hold 4"),
        (changed(), {"vision.autoscaling": {"max_replicas": 99}}, "vision.*99, .* hold 24"),
        (changed(), {"preprocess.autoscaling": {"max_replicas": 99}}, "preprocess.*99"),
        (changed(), {"gateway.autoscaling": {"max_replicas": 999}}, "gateway.*999"),
        (changed(), {"decoder.tensor_parallel": 8}, "8 GPUs, .*a2-ultragpu-4g has 4"),
        (changed(gateway={"memory_gib": 3}), {}, "gateway.*too little for Ray"),
    ],
)
def test_replicas_that_could_never_be_placed_are_refused(platform, overrides, says):
    config = load_config(PROFILES / "pixtral-large-bf16-4xa100.yaml", overrides)
    with pytest.raises(Problem, match=says):
        manifests(config, platform, IMAGE, HOST)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda values: values["pools"].pop("vision"), "pools lacks vision"),
        (lambda values: values.update(password="x"), "password: Extra inputs"),
        (lambda values: values["pools"]["head"].update(min_nodes=9), r"pools\.head: .*above"),
        (lambda values: values["pools"]["decoder"].update(groups_per_node=3), "shared by 3"),
        (lambda values: values["database"].update(port=0), r"database\.port"),
        (lambda values: values.update(weights_uri="http://x"), "weights_uri"),
    ],
)
def test_a_platform_of_another_shape_is_refused_by_key(tmp_path, change, says):
    values = copy.deepcopy(described("gcp-prod"))
    change(values)
    file = tmp_path / "platform.json"
    file.write_text(json.dumps(values))
    with pytest.raises(Problem, match=says):
        load_platform(file)


@pytest.mark.parametrize(("profile", "platform"), pairs())
def test_no_secret_is_printed(profile, platform):
    made = rendered(profile, platform)
    assert of_kind(made, "Secret") == []
    for manifest in made:
        for pod in pods(made).values():
            for container in (*pod["initContainers"], *pod["containers"]):
                for variable in container["env"]:
                    name = variable["name"].lower()
                    assert not any(word in name for word in ("password", "secret", "pepper", "key"))
        if manifest["kind"] == "ConfigMap" and "config.yaml" in manifest["data"]:
            config = parse_config(yaml.safe_load(manifest["data"]["config.yaml"]))
            assert "@" in config.accounting.database_url
            user = config.accounting.database_url.split("//")[1].split("@")[0]
            assert ":" not in user, "a password in the URL"
    # Certificates are for everybody to see; keys are not.
    begun = {line for leaf in leaves(made) for line in str(leaf).splitlines() if "BEGIN " in line}
    assert begun <= {"-----BEGIN CERTIFICATE-----"}


def test_a_password_in_the_operators_own_url_does_not_get_through():
    config = load_config(
        PROFILES / "local.yaml",
        {"model.path": "m", "accounting.database_url": "postgresql://u:hunter2@h/d"},
    )
    assert "hunter2" not in str(manifests(config, platforms()["neutral"], IMAGE, HOST))


def test_the_deployed_config_is_the_operators_with_the_clusters_places():
    config = profiles()["pixtral-large-bf16-4xa100"]
    deployed = deployed_config(config, platforms()["gcp-prod"])
    assert parse_config(yaml.safe_load(as_yaml(deployed))) == deployed
    assert deployed.decoder.kv_cache_bytes == config.decoder.kv_cache_bytes
    assert deployed.model.name == config.model.name
    assert str(deployed.model.path) == "/weights/Pixtral-Large-Instruct-2411"
    assert deployed.ray.tier_resources
    assert deployed.gateway.auth
    assert deployed.accounting.database_url.endswith("?ssl=require")
    other = config.model_copy(
        update={"decoder": config.decoder.model_copy(update={"max_waiting": 9})}
    )
    changed_config = deployed_config(other, platforms()["gcp-prod"])
    assert changed_config.decoder.max_waiting == 9
    assert config_map_name(changed_config) != config_map_name(deployed)


def test_the_examples_that_terraform_plans_with_are_what_is_rendered_now():
    found = dict(examples())
    assert len(found) == 6
    stale = [str(file) for file, text in found.items() if file.read_text() != text]
    assert stale == [], "run `python -m ops.deploy.examples`"


def ready_config(tmp_path):
    (tmp_path / "key").write_text("sk-pixtral-" + "x" * 32)
    pepper = tmp_path / "pepper"
    pepper.write_bytes(b"p" * 32)
    # As the gateways' volume shows it: its group, ours, may read it.
    pepper.chmod(0o440)
    file = tmp_path / "config.yaml"
    file.write_text(
        f"model: {{path: {tmp_path}}}\n"
        f"gateway: {{api_key_file: {tmp_path}/key}}\n"
        f"accounting: {{database_url: 'sqlite:///{tmp_path}/ledger', "
        f"pepper_file: {tmp_path}/pepper}}\n"
    )
    return file


def test_a_gateway_prepares_the_accounts_and_again_without_harm(tmp_path, capsys):
    file = ready_config(tmp_path)
    assert accounts.main([str(file)]) == 0
    assert accounts.main([str(file)]) == 0
    assert capsys.readouterr().out.count("first key is known") == 2


def test_a_revoked_first_key_stays_revoked_and_does_not_stop_a_gateway(
    tmp_path, capsys, monkeypatch
):
    def revoked(*_):
        raise Conflict("the key was revoked")

    monkeypatch.setattr("serve_app.accounting.office.prepare", revoked)
    assert accounts.main([str(ready_config(tmp_path))]) == 0
    assert "stays so" in capsys.readouterr().out


def test_accounts_that_cannot_be_prepared_stop_it(tmp_path, capsys):
    file = ready_config(tmp_path)
    (tmp_path / "key").unlink()
    assert accounts.main([str(file)]) == 1
    assert "api_key_file" in capsys.readouterr().err
