"""Every profile on every platform is what Kubernetes, KubeRay and Ray Serve take, by field."""

import copy
import json
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.serve.schema import ServeDeploySchema

from ops.deploy import layout
from ops.deploy.manifests import documents
from ops.deploy.platform import NEUTRAL
from ops.deploy.serve_config import serve_config
from tests.ops.deploy.looking import group, of_kind, pods, ray_service
from tests.ops.deploy.platforms import all_manifests, pairs, platforms, profiles, rendered
from tests.ops.deploy.rayservice_schema import REDUCED, reduced, strict

CRD = Path("/work/shared/data/rayservice-crd.yaml.gz")
# Of controllers, not of Kubernetes: no validator of theirs is at hand.
CUSTOM = {"RayService", "PodMonitor", "BackendConfig"}
KUBERNETES = "1.33"
EACH = pytest.mark.parametrize(("profile", "platform"), pairs())


@pytest.fixture(scope="module")
def schema():
    return jsonschema.Draft7Validator(json.loads(REDUCED.read_text()))


def faults(validator, manifest):
    return sorted(error.message for error in validator.iter_errors(manifest))


@EACH
def test_the_ray_service_has_only_fields_that_kuberay_knows(schema, profile, platform):
    assert faults(schema, ray_service(rendered(profile, platform))) == []


def distinct(manifests):
    """Most are the same on every platform, and each takes a while."""
    return {json.dumps(each, sort_keys=True): each for each in manifests}.values()


def test_kinds_of_kubernetes_itself_are_strictly_valid():
    checked = set()
    for manifest in distinct(all_manifests()):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
            checked.add(manifest["kind"])
    assert checked >= {"ConfigMap", "Ingress", "NetworkPolicy", "PodDisruptionBudget", "Service"}


def test_every_pod_is_strictly_valid():
    found = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        for pair in pairs()
        for name, spec in pods(rendered(*pair)).items()
    ]
    for pod in distinct(found):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    assert len(found) > 70


@pytest.mark.parametrize(
    ("path", "misspelt"),
    [
        (("spec",), "excludeHeadPodFromServeSvcs"),
        (("spec", "rayClusterConfig"), "gcsFaultToleranceOption"),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 0), "maxReplica"),
        (("spec", "rayClusterConfig", "headGroupSpec", "template", "spec"), "nodeSelectors"),
        (("spec", "rayClusterConfig", "autoscalerOptions"), "idleTimeoutSecond"),
    ],
)
def test_a_misspelt_field_is_caught(schema, path, misspelt):
    manifest = copy.deepcopy(ray_service(rendered("local", "neutral")))
    target = manifest
    for step in path:
        target = target[step]
    target[misspelt] = 1
    assert any(misspelt in fault for fault in faults(schema, manifest))


def test_a_misspelt_field_of_a_built_in_kind_is_caught():
    manifest = copy.deepcopy(of_kind(rendered("local", "neutral"), "NetworkPolicy")[0])
    manifest["spec"]["policyType"] = ["Ingress"]
    with pytest.raises(kubernetes_validate.ValidationError, match="policyType"):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.skipif(not CRD.exists(), reason="KubeRay's own definition is not on this machine")
def test_kuberays_own_definition_takes_it_and_our_schema_is_what_we_use_of_it():
    definition = strict(CRD)
    used = [ray_service(rendered(*pair)) for pair in pairs()]
    whole = jsonschema.Draft7Validator(definition)
    assert [faults(whole, each) for each in distinct(used)] == [[]] * len(distinct(used))
    assert json.loads(REDUCED.read_text()) == reduced(definition, used), (
        "run `python -m tests.ops.deploy.rayservice_schema`"
    )


@EACH
def test_rays_own_autoscaler_reads_the_tiers(profile, platform):
    """By the function that it reads a RayCluster with."""
    manifests = rendered(profile, platform)
    cluster = ray_service(manifests)["spec"]["rayClusterConfig"]
    kinds = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "c", "namespace": "n"}, "spec": cluster}
    )["available_node_types"]
    shares = platforms()[platform].vision_shares
    expected = {"headgroup", "gateway", "preprocess", "decoder"} | (set() if shares else {"vision"})
    assert set(kinds) == expected
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert not kinds["headgroup"]["resources"].get("GPU")
    for name in expected - {"headgroup"}:
        offered = {key for key in kinds[name]["resources"] if key.startswith("pixtral_")}
        also = {"pixtral_vision"} if name == "decoder" and shares else set()
        assert offered == {f"pixtral_{name}", *also}
        declared = group(manifests, name)
        assert kinds[name]["min_workers"] == declared["minReplicas"]
        assert kinds[name]["max_workers"] == declared["maxReplicas"]
        assert kinds[name]["idle_timeout_s"] == declared["idleTimeoutSeconds"]
    wanted = 0 if profile == "local" else 4
    assert kinds["decoder"]["resources"].get("GPU", 0) == wanted


def strictly(model, values):
    """Serve takes unknown keys in silence, to be ready for its next version."""
    unknown = set(values) - set(type(model).model_fields)
    assert not unknown, unknown
    for key, value in values.items():
        inner = getattr(model, key)
        if isinstance(value, dict) and hasattr(type(inner), "model_fields"):
            strictly(inner, value)
        for item, entry in zip(inner, value, strict=True) if isinstance(value, list) else ():
            if isinstance(entry, dict):
                strictly(item, entry)


def test_serve_takes_its_config_and_knows_every_key():
    config = serve_config()
    strictly(ServeDeploySchema.model_validate(config), config)
    (application,) = config["applications"]
    wrong = config | {"applications": [application | {"import_paths": "x"}]}
    taken = ServeDeploySchema.model_validate(wrong)
    with pytest.raises(AssertionError, match="import_paths"):
        strictly(taken, wrong)
    with pytest.raises(ValueError, match="import_path"):
        ServeDeploySchema.model_validate(
            config | {"applications": [application | {"import_path": "serve_app"}]}
        )


def test_what_is_printed_is_what_was_made():
    manifests = rendered("local", "neutral")
    text = documents(manifests)
    assert list(yaml.safe_load_all(text)) == manifests
    assert "&id" not in text


def test_the_versions_are_those_installed():
    constraints = (Path(__file__).parents[3] / "constraints.txt").read_text()
    assert f"\nray=={layout.RAY_VERSION}\n" in constraints


def test_the_profiles_are_all_of_them():
    assert len(profiles()) >= 3
    assert platforms()["neutral"] is NEUTRAL
