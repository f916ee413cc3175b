"""Who reaches what, read off the NetworkPolicies as Kubernetes would."""

import ipaddress

import kubernetes_validate
import pytest

from ops.deploy.fences import network_policies
from ops.deploy.platform import Platform
from ops.problem import Problem
from serve_app.config import load_config
from tests.ops.deploy.looking import of_kind
from tests.ops.deploy.platforms import described, pairs, platforms, profiles, rendered
from tests.ops.deploy.test_valid import KUBERNETES

EACH = pytest.mark.parametrize(("profile", "platform"), pairs())
OURS = {"app.kubernetes.io/part-of": "pixtral"}
GROUPS = ("headgroup", "gateway", "preprocess", "vision", "decoder")
# Of Ray, of Serve's proxy and HAProxy, and some of those that are drawn by lot.
FENCED = (6379, 8265, 10001, 8404, 9101, 30000, 30500, 31000, 52365, 10002, 19999, 44217, 40000)
STRANGERS = ("kube-system", "default", "ingress-nginx", "monitoring", "pixtral")


def selects(selector, labels):
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    among = all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )
    return wanted and among


def admits(rules, peer, port):
    """``peer``: {"pod": labels} of our namespace, {"namespace": name} or {"address": ip}."""
    for rule in rules:
        ports = rule.get("ports")
        if ports is not None and port not in {each["port"] for each in ports}:
            continue
        peers = rule.get("from", rule.get("to"))
        if peers is None or any(meets(each, peer) for each in peers):
            return True
    return False


def meets(rule, peer):
    if "ipBlock" in rule:
        if "address" not in peer:
            return False
        address, block = ipaddress.ip_address(peer["address"]), rule["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(each) for each in block.get("except", ())
        )
    if "namespaceSelector" in rule:
        labels = {"kubernetes.io/metadata.name": peer.get("namespace")}
        return selects(rule["namespaceSelector"], labels)
    return "pod" in peer and selects(rule["podSelector"], peer["pod"])


def let_through(manifests, direction, group, peer, port):
    labels = OURS | {"ray.io/group": group}
    policies = [
        each["spec"]
        for each in of_kind(manifests, "NetworkPolicy")
        if selects(each["spec"]["podSelector"], labels) and direction in each["spec"]["policyTypes"]
    ]
    assert policies, "no policy selects the pod: all would be open"
    return any(admits(each.get(direction.lower(), ()), peer, port) for each in policies)


@EACH
def test_no_stranger_reaches_a_port_of_ray_or_serve(profile, platform):
    manifests = rendered(profile, platform)
    for group in GROUPS:
        for port in FENCED:
            for name in STRANGERS:
                # A pod without our label, wherever it runs, our own namespace too.
                stranger = {"namespace": name, "pod": {"app": "other"}}
                assert not let_through(manifests, "Ingress", group, stranger, port)
            for address in ("10.0.0.9", "8.8.8.8", "169.254.169.254"):
                assert not let_through(manifests, "Ingress", group, {"address": address}, port)
            operator = let_through(
                manifests, "Ingress", group, {"namespace": "kuberay-system"}, port
            )
            assert operator == (group == "headgroup" and port == 8265)


@EACH
def test_pods_of_this_system_reach_each_other(profile, platform):
    manifests = rendered(profile, platform)
    for group in GROUPS:
        for other in GROUPS:
            peer = {"pod": OURS | {"ray.io/group": other}}
            for port in (*FENCED, 8000):
                assert let_through(manifests, "Ingress", group, peer, port)
                assert let_through(manifests, "Egress", group, peer, port)


@EACH
def test_only_the_load_balancer_reaches_rest_and_only_at_gateways(profile, platform):
    manifests = rendered(profile, platform)
    ingress = platforms()[platform].ingress
    callers = [{"namespace": ingress.namespace}] if ingress.namespace else []
    callers += [{"address": str(ipaddress.ip_network(cidr)[5])} for cidr in ingress.source_cidrs]
    assert callers
    for caller in callers:
        for group in GROUPS:
            reached = let_through(manifests, "Ingress", group, caller, 8000)
            assert reached == (group == "gateway")
    for stranger in ({"namespace": "default"}, {"address": "8.8.8.8"}, {"address": "192.168.9.9"}):
        assert not let_through(manifests, "Ingress", "gateway", stranger, 8000)


@EACH
def test_prometheus_reads_metrics_and_nothing_else(profile, platform):
    manifests = rendered(profile, platform)
    prometheus = {"namespace": "monitoring"}
    for group in GROUPS:
        assert let_through(manifests, "Ingress", group, prometheus, 8080)
        assert let_through(manifests, "Ingress", group, prometheus, 8000) == (group == "gateway")


@EACH
def test_only_gateways_reach_the_ledger_and_only_the_head_redis(profile, platform):
    manifests = rendered(profile, platform)
    there = platforms()[platform]
    for group in GROUPS:
        for service, owner in ((there.database, "gateway"), (there.redis, "headgroup")):
            peer = {"address": service.host if service.host[0].isdigit() else "10.7.7.7"}
            reached = let_through(manifests, "Egress", group, peer, service.port)
            assert reached == (group == owner)


@EACH
def test_only_who_reads_weights_leaves_for_the_bucket(profile, platform):
    manifests = rendered(profile, platform)
    for group in GROUPS:
        reached = let_through(manifests, "Egress", group, {"address": "142.250.1.1"}, 443)
        assert reached == (group in ("vision", "decoder"))
        assert let_through(manifests, "Egress", group, {"namespace": "kube-system"}, 53)
        assert not let_through(manifests, "Egress", group, {"address": "142.250.1.1"}, 80)


def test_gateways_may_post_budget_alerts_where_any_are():
    config = load_config(None, {"model.path": "m", "accounting.alert_hosts": ["hooks.internal"]})
    policies = network_policies(config, platforms()["gcp-prod"])
    assert let_through(policies, "Egress", "gateway", {"address": "142.250.1.1"}, 443)


PUBLIC = ("93.184.215.14", "2606:2800:21f:cb07::1")
INNER = ("10.0.0.1", "169.254.169.254", "127.0.0.1", "100.100.100.200", "168.63.129.16")


def fetching(**settings):
    config = load_config(None, {"model.path": "m", "preprocess.fetch": settings})
    return network_policies(config, platforms()["gcp-prod"])


@EACH
def test_preprocessing_goes_nowhere_while_no_pictures_are_fetched(profile, platform):
    for address in (*PUBLIC, *INNER):
        for port in (80, 443):
            peer = {"address": address}
            assert not let_through(rendered(profile, platform), "Egress", "preprocess", peer, port)


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({"allow_public": True}, {443}),
        ({"allow_public": True, "allow_http": True}, {80, 443}),
        ({"allow_hosts": ["a.example.com", "*.b.example.com:8443"]}, {443, 8443}),
    ],
)
def test_preprocessing_alone_reaches_public_pictures_and_only_at_their_ports(settings, ports):
    policies = fetching(**settings)
    for port in (22, 80, 443, 5432, 8443):
        for address in PUBLIC:
            reached = let_through(policies, "Egress", "preprocess", {"address": address}, port)
            assert reached == (port in ports)
        for address in (*INNER, "fd00:ec2::254", "2001:db8::1", "2002:7f00:1::"):
            assert not let_through(policies, "Egress", "preprocess", {"address": address}, port)
        for group in ("headgroup", "gateway"):
            assert not let_through(policies, "Egress", group, {"address": PUBLIC[0]}, port)


def test_an_operators_own_public_networks_are_fenced_off_too():
    policies = fetching(allow_public=True, refused_networks=["93.184.215.0/24", "2606:2800::/32"])
    for address in PUBLIC:
        assert not let_through(policies, "Egress", "preprocess", {"address": address}, 443)
    assert let_through(policies, "Egress", "preprocess", {"address": "151.101.1.140"}, 443)


def test_what_is_taken_out_of_a_block_lies_within_it():
    """Or Kubernetes refuses the policy."""
    (policy,) = (
        each
        for each in fetching(allow_public=True)
        if each["metadata"]["name"].endswith("pictures")
    )
    kubernetes_validate.validate(policy, KUBERNETES, strict=True)
    for rule in policy["spec"]["egress"]:
        for peer in rule["to"]:
            block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
            assert peer["ipBlock"]["except"]
            for each in map(ipaddress.ip_network, peer["ipBlock"]["except"]):
                assert each.version == block.version
                assert each.network_address in block
                assert each.prefixlen > block.prefixlen


def test_without_the_load_balancers_addresses_nothing_is_rendered():
    values = described("gcp-prod")
    del values["ingress"]["source_cidrs"]
    with pytest.raises(Problem, match="--callers"):
        network_policies(profiles()["local"], Platform.model_validate(values))


def test_a_missing_default_would_be_seen():
    """The tests above ask policies that select a pod; without the default they would still pass."""
    for pair in pairs():
        policies = of_kind(rendered(*pair), "NetworkPolicy")
        (default,) = (
            each["spec"]
            for each in policies
            if each["spec"]["podSelector"] == {}
            and "ingress" not in each["spec"]
            and "egress" not in each["spec"]
        )
        assert default["policyTypes"] == ["Ingress", "Egress"]
