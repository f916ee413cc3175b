"""Policy: Ray's dashboard, which runs whatever it is sent, is reached by nobody from outside."""

from __future__ import annotations

from collections.abc import Iterator

from ops.deploy import layout
from ops.terraform.kubernetes import Admission, admissions, doors
from ops.terraform.openings import Opening, is_inside, openings
from ops.terraform.plan import Plan
from ops.terraform.violation import Violation

RULE = "dashboard reachable"

_PORT = layout.DASHBOARD_PORT
# KubeRay's own name for it, by which a Service or a policy may mean it.
_NAME = "dashboard"
# The address from which Azure asks for health: no network, and nobody else's.
_PROBES = {"AzureLoadBalancer"}


def dashboard(plan: Plan) -> Iterator[Violation]:
    """No rule, service, ingress or network policy leads to its port, by name, by number or by
    opening every port. Nodes and pods of one cluster have to reach each other on all of them: what
    the cluster's own ranges may do, the network policies say."""
    for opening in openings(plan):
        if opening.has_ports and (told := _leads(opening, plan)):
            yield Violation.of(opening.resource, RULE, told)
    for door in doors(plan):
        if door.outward and (_PORT in door.ports or _NAME in door.port_names):
            told = f"leads to port {_PORT} by a {door.kind}"
            yield Violation.of(door.resource, RULE, told)
    for admission in admissions(plan):
        if told := _admits(admission):
            yield Violation.of(admission.resource, RULE, told)


def _leads(opening: Opening, plan: Plan) -> str | None:
    if not opening.covers(_PORT):
        return None
    if not opening.is_wide:
        return f"opens port {_PORT}"
    strangers = [
        source
        for source in opening.sources
        if source not in _PROBES and not is_inside(source, plan)
    ]
    if opening.sources and not strangers:
        return None
    return f"opens every port, {_PORT} too, to {', '.join(strangers) or 'a group or tag'}"


def _admits(admission: Admission) -> str | None:
    """Pods of this system may, and KubeRay's operator, which asks how the application is."""
    if not admission.covers(_PORT, _NAME):
        return None
    named = admission.ports is not None
    for peer in admission.peers:
        operators = peer == {"namespaceSelector": _in_namespace(layout.OPERATOR_NAMESPACE)}
        ours = peer == {"podSelector": {"matchLabels": layout.POD_LABELS}}
        if not (ours or (operators and named)):
            return f"NetworkPolicy {admission.name} lets {peer or 'everybody'} at port {_PORT}"
    return None


def _in_namespace(name: str) -> dict[str, dict[str, str]]:
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}
