"""What holds for every pod, on every platform, for every profile."""

import json
from math import floor

import pytest

from ops.deploy import layout
from ops.deploy.sizing import GIB, SHM_BEYOND_STORE
from ops.deploy.timings import timings
from serve_app import cluster
from tests.ops.deploy.looking import cores, group, mebibytes, of_kind, pods, ray_service
from tests.ops.deploy.platforms import pairs, platforms, profiles, rendered

EACH = pytest.mark.parametrize(("profile", "platform"), pairs())


def pool_of(platform, name):
    return platforms()[platform].pools["head" if name == "headgroup" else name]


def start_params(manifests):
    config = ray_service(manifests)["spec"]["rayClusterConfig"]
    return {"headgroup": config["headGroupSpec"]["rayStartParams"]} | {
        each["groupName"]: each["rayStartParams"] for each in config["workerGroupSpecs"]
    }


@EACH
def test_shared_memory_holds_the_store_and_lies_within_the_limit(profile, platform):
    manifests = rendered(profile, platform)
    for name, spec in pods(manifests).items():
        (volume,) = (each for each in spec["volumes"] if each["name"] == "shared-mem")
        (container,) = spec["containers"]
        assert volume["emptyDir"]["medium"] == "Memory"
        assert {"name": "shared-mem", "mountPath": "/dev/shm"} in container["volumeMounts"]
        shm = mebibytes(volume["emptyDir"]["sizeLimit"]) * 2**20
        store = int(start_params(manifests)[name]["object-store-memory"])
        assert shm == store + SHM_BEYOND_STORE
        assert shm + GIB <= mebibytes(container["resources"]["limits"]["memory"]) * 2**20
        assert 80 * 2**20 <= store <= profiles()[profile].ray.object_store_bytes


@EACH
def test_what_is_requested_fits_the_machine(profile, platform):
    for name, spec in pods(rendered(profile, platform)).items():
        pool = pool_of(platform, name)
        for container in (*spec["initContainers"], *spec["containers"]):
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            share = pool.pods_per_node
            assert share * cores(resources["requests"]["cpu"]) <= 0.86 * pool.cpu
            requested = share * mebibytes(resources["requests"]["memory"]) / 1024
            assert requested <= 0.95 * pool.memory_gib
            assert share * int(resources["requests"].get("nvidia.com/gpu", 0)) <= pool.gpus


@EACH
def test_pods_are_held_short(profile, platform):
    for spec in pods(rendered(profile, platform)).values():
        security = spec["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in (*spec["initContainers"], *spec["containers"]):
            held = container["securityContext"]
            assert held["readOnlyRootFilesystem"]
            assert not held["allowPrivilegeEscalation"]
            assert held["capabilities"]["drop"] == ["ALL"]
            if container["name"] == "own-node-folders":
                # The one exception, which runs one command on folders that we name.
                assert held["capabilities"]["add"] == ["CHOWN"]
                assert container["command"][:2] == ["chown", "1000:1000"]
            else:
                assert "add" not in held["capabilities"]
                assert "runAsUser" not in held
        for name in ("/tmp", "/tmp/ray"):
            assert name in {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        for volume in spec["volumes"]:
            if "hostPath" in volume:
                assert volume["name"] in ("weights", "journal")
    options = ray_service(rendered(profile, platform))["spec"]["rayClusterConfig"]
    held = options["autoscalerOptions"]["securityContext"]
    assert held["readOnlyRootFilesystem"]
    assert not held["allowPrivilegeEscalation"]


@EACH
def test_only_gateways_have_secrets(profile, platform):
    for name, spec in pods(rendered(profile, platform)).items():
        text = json.dumps(spec)
        secrets = set(layout.SECRETS) if name == "gateway" else set()
        assert {secret for secret in layout.SECRETS if secret in text} == secrets
        assert ("/secrets" in text) == (name == "gateway")


@EACH
def test_every_ray_process_has_the_environment_of_the_laptop(profile, platform):
    for name, spec in pods(rendered(profile, platform)).items():
        environment = {each["name"]: each["value"] for each in spec["containers"][0]["env"]}
        wanted = {key: value for key, value in cluster.EVERYWHERE.items() if key != "RAY_AUTH_MODE"}
        assert wanted.items() <= environment.items()
        beyond = set(environment) - set(wanted) - {"HOME"}
        nccl = set(platforms()[platform].nccl_env) if name == "decoder" else set()
        authority = name == "headgroup" and platforms()[platform].redis.tls
        assert beyond == nccl | ({"RAY_REDIS_CA_CERT"} if authority else set())
    ray = ray_service(rendered(profile, platform))["spec"]["rayClusterConfig"]
    assert ray["authOptions"] == {"mode": "token", "secretName": "pixtral-ray-token"}


@EACH
def test_the_head_runs_no_replica_and_the_proxies_run_beside_them(profile, platform):
    manifests = rendered(profile, platform)
    params = start_params(manifests)["headgroup"]
    assert (params["num-cpus"], params["num-gpus"]) == ("0", "0")
    spec = ray_service(manifests)["spec"]
    assert spec["excludeHeadPodFromServeSvc"]
    # On the head only, the proxy would be where no Service sends anybody.
    assert "proxy_location: EveryNode" in spec["serveConfigV2"]


@EACH
def test_decoders_are_as_many_as_the_platform_holds(profile, platform):
    manifests = rendered(profile, platform)
    pool = platforms()[platform].pools["decoder"]
    decoder = group(manifests, "decoder")
    per_node = max(pool.groups_per_node, 1)
    assert decoder["minReplicas"] == pool.min_nodes * per_node
    assert decoder["maxReplicas"] == pool.max_nodes * per_node
    asked = decoder["template"]["spec"]["containers"][0]["resources"]["limits"]
    wanted = "4" if profiles()[profile].decoder.device == "cuda" else None
    assert asked.get("nvidia.com/gpu") == wanted
    # A whole group and, where it shares, a vision replica can be booked.
    config = profiles()[profile].decoder
    booked = 0.5 + config.tensor_parallel * config.cpus_per_rank
    assert floor(cores(asked["cpu"])) >= booked + 1


@EACH
def test_journals_and_weights_outlive_a_pod(profile, platform):
    specs = pods(rendered(profile, platform))
    journal = {
        "path": "/var/lib/pixtral/journal",
        "type": "DirectoryOrCreate",
    }
    volumes = {each["name"]: each for each in specs["decoder"]["volumes"]}
    assert volumes["journal"]["hostPath"] == journal
    assert "hostPath" in volumes["weights"]
    for name in ("headgroup", "gateway", "preprocess"):
        kinds = {each["name"] for each in specs[name]["volumes"] if "hostPath" in each}
        assert kinds <= ({"weights"} if platform == "neutral" else set())


def commands(spec):
    return {each["name"]: each["command"] for each in spec["initContainers"]}


def test_each_tier_fetches_its_own_part():
    shared, apart = (
        pods(rendered("pixtral-large-bf16-4xa100", name)) for name in ("gcp-dev", "gcp-prod")
    )
    fetch = ["pixtral", "weights", "fetch"]
    dev, prod = (platforms()[name].weights_uri for name in ("gcp-dev", "gcp-prod"))
    target = "/weights/Pixtral-Large-Instruct-2411"
    assert commands(shared["decoder"])["fetch"] == [*fetch, dev, target, "--part", "all", "--quick"]
    assert commands(apart["decoder"])["fetch"] == [
        *fetch,
        prod,
        target,
        "--part",
        "text",
        "--quick",
    ]
    assert commands(apart["vision"])["fetch"] == [
        *fetch,
        prod,
        target,
        "--part",
        "vision",
        "--quick",
    ]
    for name in ("headgroup", "gateway", "preprocess"):
        assert "fetch" not in commands(apart[name])


@EACH
def test_gateways_bring_the_accounts_up_to_date_first(profile, platform):
    specs = pods(rendered(profile, platform))
    preparing = [name for name, spec in specs.items() if "accounts" in commands(spec)]
    assert preparing == ["gateway"]


@EACH
def test_no_probe_waits_for_the_model_and_only_gateways_must_have_a_proxy(profile, platform):
    for name, spec in pods(rendered(profile, platform)).items():
        (container,) = spec["containers"]
        live, ready = container["livenessProbe"], container["readinessProbe"]
        for probe in (live, ready):
            assert "/readyz" not in probe["exec"]["command"][2]
            # Each address is given up on before kubelet gives up on the probe.
            assert 4 * probe["exec"]["command"][2].count("-T 4") <= 2 * probe["timeoutSeconds"]
        assert live["periodSeconds"] * live["failureThreshold"] == 600
        assert (":8000/-/healthz" in ready["exec"]["command"][2]) == (name == "gateway")


def test_the_autoscaler_waits_for_weights_longer_than_they_take():
    allowed = timings()
    assert (round(allowed.fetch_s), round(allowed.load_s)) == (2483, 497)
    assert allowed.allocate_s == 5074
    for pair in pairs():
        options = ray_service(rendered(*pair))["spec"]["rayClusterConfig"]["autoscalerOptions"]
        environment = {each["name"]: each["value"] for each in options["env"]}
        waits = int(environment["RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"])
        assert waits > allowed.fetch_s + 900
        assert options["version"] == "v2"


def test_an_upgrade_asks_for_a_second_cluster_only_where_that_is_cheap():
    def upgraded(profile):
        return ray_service(rendered(profile, "aws-prod"))["spec"]["upgradeStrategy"]["type"]

    assert upgraded("local") == "NewCluster"
    assert upgraded("pixtral-large-bf16-4xa100") == "None"


def test_two_clusters_never_share_a_namespace_in_redis():
    names = []
    for platform in ("gcp-prod", "aws-prod", "azure-prod"):
        manifests = rendered("pixtral-large-bf16-4xa100", platform)
        options = ray_service(manifests)["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
        assert options["redisPassword"] == {
            "valueFrom": {"secretKeyRef": {"name": "pixtral-redis", "key": "password"}}
        }
        redis = platforms()[platform].redis
        assert options["redisAddress"] == f"rediss://{redis.host}:{redis.port}"
        names.append(options["externalStorageNamespace"])
    assert len(set(names)) == 3
    # Here an upgrade makes a second one beside the first: KubeRay gives each its own.
    fault = ray_service(rendered("local", "gcp-dev"))["spec"]["rayClusterConfig"]
    assert "externalStorageNamespace" not in fault["gcsFaultToleranceOptions"]


@EACH
def test_nobody_drains_a_head_or_a_group_by_accident(profile, platform):
    budgets = {
        each["spec"]["selector"]["matchLabels"]["ray.io/group"]: each["spec"]["maxUnavailable"]
        for each in of_kind(rendered(profile, platform), "PodDisruptionBudget")
    }
    assert set(budgets) == set(pods(rendered(profile, platform)))
    gpu = profiles()[profile].decoder.device == "cuda"
    assert budgets["headgroup"] == 0
    assert budgets["decoder"] == (0 if gpu else 1)
    assert budgets["gateway"] == 1
