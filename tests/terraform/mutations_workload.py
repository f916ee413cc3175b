"""Mistakes somebody could make in what runs on the clusters; each has to be noticed offline."""

from __future__ import annotations

from tests.terraform.mutation import Mutation

_GCP, _AWS, _AZURE = (f"{cloud}-prod/workload" for cloud in ("gcp", "aws", "azure"))
_MODULE = "modules/workload"


def _manifests(root: str) -> str:
    return f"environments/{root}/example.manifests.yaml"


_REFUSED_BY_TERRAFORM = (
    Mutation(
        name="a misspelt argument",
        root=_GCP,
        file=f"{_MODULE}/main.tf",
        old="  repository = ",
        new="  repositorys = ",
        caught_by="validate",
        says="repositorys",
    ),
    Mutation(
        name="a required argument left out",
        root=_AWS,
        file=f"{_MODULE}/main.tf",
        old='  chart      = "kuberay-operator"\n',
        new="",
        caught_by="validate",
        says="chart",
    ),
    Mutation(
        name="a word for a number",
        root=_AZURE,
        file=f"{_MODULE}/main.tf",
        old="  atomic     = true\n  timeout    = 600",
        new='  atomic     = true\n  timeout    = "ten minutes"',
        caught_by="validate",
        says="a number is required",
    ),
    Mutation(
        name="a resource that does not exist",
        root=_GCP,
        file=f"{_MODULE}/main.tf",
        old="depends_on = [helm_release.operator, ",
        new="depends_on = [helm_release.kuberay, ",
        caught_by="validate",
        says="undeclared resource",
    ),
    Mutation(
        name="an unknown block",
        root=_GCP,
        file=f"{_MODULE}/main.tf",
        old="metadata {\n    name = local.platform.namespace",
        new="metadatas {\n    name = local.platform.namespace",
        caught_by="validate",
        says="metadatas",
    ),
    Mutation(
        name="an unknown argument of a provider",
        root=_AWS,
        file=f"environments/{_AWS}/versions.tf",
        old='provider "kubernetes" {\n  config_path    = var.kubeconfig',
        new='provider "kubernetes" {\n  config_paht    = var.kubeconfig',
        caught_by="validate",
        says="config_paht",
    ),
    Mutation(
        name="a variable that the module needs left out",
        root=_AZURE,
        file=f"environments/{_AZURE}/main.tf",
        old="  deletion_protection = true\n",
        new="",
        caught_by="validate",
        says="deletion_protection",
    ),
)

_REFUSED_BY_TESTS = (
    Mutation(
        name="another version of the operator than the manifests are checked against",
        root=_GCP,
        file=f"{_MODULE}/variables.tf",
        old='default     = "1.7.0"',
        new='default     = "1.6.2"',
        caught_by="test",
        says="must be the version",
    ),
    Mutation(
        name="load balancers that an Ingress could make public",
        root=_AWS,
        file=f"{_MODULE}/addons.tf",
        old='spec = { scheme = "internal" }',
        new="spec = {}",
        caught_by="test",
        says="eks_gets_what_it_lacks",
    ),
    Mutation(
        name="an add-on of any version",
        root=_AWS,
        file=f"{_MODULE}/addons.tf",
        old='version    = "9.52.1"',
        new='version    = ">= 9"',
        caught_by="test",
        says="each of one exact version",
    ),
    Mutation(
        name="GPUs that nothing tells Kubernetes of",
        root=_AZURE,
        file=f"{_MODULE}/addons.tf",
        old='contains(["aws", "azure"], local.cloud)',
        new='contains(["aws"], local.cloud)',
        caught_by="test",
        says="it installs drivers only",
    ),
    Mutation(
        name="an operator that acts in every namespace",
        root=_GCP,
        file=f"{_MODULE}/main.tf",
        old="watchNamespace         = [kubernetes_namespace_v1.system.metadata[0].name]",
        new="watchNamespace         = []",
        caught_by="test",
        says="system's namespace only",
    ),
)

_REFUSED_BY_THE_PLAN = (
    Mutation(
        name="a network policy that opens every port, the dashboard's too",
        root=_AWS,
        file=_manifests(_AWS),
        old="    ports:\n    - protocol: TCP\n      port: 8080\n",
        new="",
        caught_by="policy",
        says="NetworkPolicy pixtral-scrape lets",
    ),
    Mutation(
        name="a network policy that lets more than the operator at the dashboard",
        root=_AZURE,
        file=_manifests(_AZURE),
        old="          kubernetes.io/metadata.name: kuberay-system\n",
        new="          team: platform\n",
        caught_by="policy",
        says="NetworkPolicy pixtral-operator lets",
    ),
    Mutation(
        name="Ray's dashboard on a load balancer",
        root=_AWS,
        file=_manifests(_AWS),
        old="      serviceType: ClusterIP\n",
        new="      serviceType: LoadBalancer\n",
        caught_by="policy",
        says="dashboard",
    ),
    Mutation(
        name="gateways on a load balancer of their own",
        root=_GCP,
        file=_manifests(_GCP),
        old="spec:\n  type: ClusterIP\n",
        new="spec:\n  type: LoadBalancer\n",
        caught_by="policy",
        says="a way in of its own",
    ),
    Mutation(
        name="Ray without its token",
        root=_AZURE,
        file=_manifests(_AZURE),
        old="      mode: token\n",
        new="      mode: disabled\n",
        caught_by="policy",
        says="token authentication off",
    ),
    Mutation(
        name="a secret among the manifests",
        root=_GCP,
        file=_manifests(_GCP),
        old="kind: ConfigMap\nmetadata:\n  name: pixtral-config",
        new="kind: Secret\nmetadata:\n  name: pixtral-config",
        caught_by="policy",
        says="would be kept in the state",
    ),
    Mutation(
        name="no fence by default",
        root=_AWS,
        file=_manifests(_AWS),
        old="  podSelector: {}\n  policyTypes:\n  - Ingress\n  - Egress\n",
        new="  podSelector:\n    matchLabels: {a: b}\n  policyTypes:\n  - Ingress\n  - Egress\n",
        caught_by="policy",
        says="denies by default",
    ),
    Mutation(
        name="more decoders than the cluster has GPUs for",
        root=_GCP,
        file=f"environments/{_GCP}/example.platform.json",
        old='"max_nodes": 4,\n      "memory_gib": 680,',
        new='"max_nodes": 2,\n      "memory_gib": 680,',
        caught_by="policy",
        says="the pools hold 12",
    ),
    Mutation(
        name="an upgrade that needs every GPU twice",
        root=_AWS,
        file=_manifests(_AWS),
        old="  upgradeStrategy:\n    type: None\n",
        new="  upgradeStrategy:\n    type: NewCluster\n",
        caught_by="policy",
        says="every GPU twice",
    ),
    Mutation(
        name="manifests of another namespace",
        root=_AZURE,
        file=f"environments/{_AZURE}/example.platform.json",
        old='"namespace": "pixtral"',
        new='"namespace": "elsewhere"',
        caught_by="policy",
        says="rendered for another platform",
    ),
    Mutation(
        name="a secret's value where its name belongs",
        root=_GCP,
        file=f"environments/{_GCP}/example.tfvars",
        old='{ remote = "pixtral/prod/pepper" }',
        new='{ remote = "hunter2 is not a name" }',
        caught_by="policy",
        says="a name in the store, not a value",
    ),
    Mutation(
        name="a secret forgotten",
        root=_AWS,
        file=f"environments/{_AWS}/example.tfvars",
        old='  pixtral-pepper        = { remote = "pixtral/prod/pepper" }\n',
        new="",
        caught_by="policy",
        says="secrets must tell of",
    ),
)

MUTATIONS: tuple[Mutation, ...] = (
    *_REFUSED_BY_TERRAFORM,
    *_REFUSED_BY_TESTS,
    *_REFUSED_BY_THE_PLAN,
)
