"""``[deploy.pods]``: what a platform asks of pods, beyond what they need to work."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from distcluster.table import PositiveInt, Table
from distcluster.url import Url

_DNS_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_FILE_NAME = r"^[-._A-Za-z0-9]{1,253}$"

Name = Annotated[str, Field(pattern=_DNS_NAME)]
LabelKey = Annotated[str, Field(pattern=_LABEL_KEY)]
LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_OUR_LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component")
_OUR_VARIABLES = ("DASK_SCHEDULER_ADDRESS", "DASK_WORKER_NAME")
_OUR_PREFIXES = ("DASK_DISTRIBUTED__COMM__TLS__", "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION")


def _without_password(url: Url) -> Url:
    if "@" in url:
        raise ValueError(
            "a password would be stored in the open: leave it out, or make a Secret and name it in environment_from"
        )
    return url


def _known_kinds(affinity: dict[str, Any]) -> dict[str, Any]:
    known = ("nodeAffinity", "podAffinity", "podAntiAffinity")
    unknown = sorted(affinity.keys() - set(known))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: must be of {', '.join(known)}")
    return affinity


class KeyReference(Table):
    """A key of a Secret or a ConfigMap, in which a value lies."""

    name: Name
    """Of the Secret, or of the ConfigMap."""
    key: Annotated[str, Field(pattern=_FILE_NAME)]
    """Whose value it is."""


class Toleration(Table):
    """A taint of nodes that pods put up with; the names are Kubernetes' own."""

    key: LabelKey | None = None
    """The taint's; absent: every taint, and operator must be Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Whether the taint's value must be equal, or may be any."""
    value: LabelValue | None = None
    """The taint's value, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent: all effects."""
    tolerationSeconds: Annotated[int, Field(ge=0)] | None = None  # noqa: N815 - as Kubernetes calls it
    """How long a taint with the effect NoExecute is put up with; absent: for good."""

    @model_validator(mode="after")
    def _possible(self) -> "Toleration":
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists has no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("operator Equal needs a key")
        if self.tolerationSeconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds needs the effect NoExecute")
        return self


class TopologySpread(Table):
    """How evenly the pods of a role lie; the names are Kubernetes' own. The pods that count are the role's."""

    topologyKey: LabelKey  # noqa: N815 - as Kubernetes calls it
    """The label of nodes that says where they are: kubernetes.io/hostname, topology.kubernetes.io/zone."""
    maxSkew: PositiveInt = 1  # noqa: N815
    """How many pods more one place may have than another."""
    whenUnsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = "ScheduleAnyway"  # noqa: N815
    """What becomes of a pod that would break it: placed all the same, or left waiting."""


class PlacementTable(Table):
    """On which nodes pods may and should run."""

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of nodes that pods put up with, such as { key = "dedicated", value = "batch", effect = "NoSchedule" }."""
    affinity: Annotated[dict[str, Any], AfterValidator(_known_kinds)] = Field(default_factory=dict)
    """nodeAffinity, podAffinity and podAntiAffinity, in Kubernetes' own form."""
    topology_spread: tuple[TopologySpread, ...] = ()
    """How evenly pods lie over nodes or zones, such as { topologyKey = "topology.kubernetes.io/zone" }."""


class PodTable(PlacementTable):
    """``[deploy.pods]``: what the platform asks of all pods; no result depends on it."""

    workers: PlacementTable = PlacementTable()
    """``[deploy.pods.workers]``: the four keys of placement once more, for workers on top: spot nodes, say. Their
    affinity replaces that of all pods, the others add to it."""
    image_pull_secrets: tuple[Name, ...] = ()
    """Secrets by which nodes pull the image from a private registry."""
    priority_class: Name | None = None
    """A PriorityClass: who goes first where nodes are full; absent: the cluster's default."""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels of every object and pod: cost centre, team."""
    annotations: dict[LabelKey, str] = Field(default_factory=dict)
    """Annotations of every pod, as injectors and meshes read them."""
    environment: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables of all pods; they win over ours, but for those that pods find each other by."""
    environment_from: dict[Variable, KeyReference] = Field(default_factory=dict)
    """The same from Secrets: { PROXY_PASSWORD = { name = "proxy", key = "password" } }."""
    cpu_limit: PositiveInt | None = None
    """Cores that a container gets at most, for namespaces that insist on a limit; absent: none, for a limit throttles
    and protects nobody. At least deploy.cpu."""
    ephemeral_storage: Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi)$")] | None = None
    """Disk of a node that a container requests and is limited to, scratch included, such as "10Gi"; absent: no request,
    and 10Gi of scratch at most."""
    user: Annotated[int, Field(ge=1, lt=2**31)] | Literal["any"] = 10001
    """The user and group that pods run as; "any": whom the platform chooses, as OpenShift does."""
    ca_bundle: KeyReference | None = None
    """A ConfigMap's key that holds the certificates (PEM) of all authorities to trust for stores and proxies, with the
    public ones, where they are needed."""
    proxy: Annotated[Url, AfterValidator(_without_password)] | None = None
    """An HTTP proxy for everything outside the cluster, such as http://proxy.example.com:3128."""
    no_proxy: tuple[str, ...] = ()
    """Hosts and domains that are reached without it, besides the cluster's own."""
    queue: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")] | None = None
    """A Kueue LocalQueue: scheduler, workers and driver are admitted together, as a group of pods."""

    @model_validator(mode="after")
    def _not_ours(self) -> "PodTable":
        named = [*self.environment, *self.environment_from]
        ours = [name for name in named if name in _OUR_VARIABLES or name.startswith(_OUR_PREFIXES)]
        ours += [name for name in self.labels if name in _OUR_LABELS]
        if ours:
            raise ValueError(f"{', '.join(ours)}: pods find each other by it, leave it out")
        twice = sorted(self.environment.keys() & self.environment_from.keys())
        if twice:
            raise ValueError(f"{', '.join(twice)}: in environment and in environment_from, keep one")
        if self.no_proxy and self.proxy is None:
            raise ValueError("no_proxy needs a proxy")
        return self
