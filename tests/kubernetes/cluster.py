"""A Kubernetes API on this machine for the real kubectl: kmock, and what it lacks of a cluster's behaviour.

Objects get uids, lists are filtered by label, what a deleted Job owns goes with it, and pods come from the templates
of stored objects. A watch tells how lists differ. A script says what happens, step by step; nothing depends on time.
"""

import asyncio
import contextlib
import copy
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp.web
import yaml
from kmock import KubernetesEmulator, Server

from distcluster.kubernetes.objects import COMPONENT, of_component
from distcluster.kubernetes.submitted import container_states

NAMESPACE = "team"
KINDS = {
    "v1/pods": "Pod", "v1/services": "Service", "v1/configmaps": "ConfigMap", "v1/secrets": "Secret",
    "v1/serviceaccounts": "ServiceAccount", "v1/events": "Event", "v1/persistentvolumeclaims": "PersistentVolumeClaim",
    "batch/v1/jobs": "Job",
    "networking.k8s.io/v1/networkpolicies": "NetworkPolicy",
    "rbac.authorization.k8s.io/v1/roles": "Role", "rbac.authorization.k8s.io/v1/rolebindings": "RoleBinding",
    "kubernetes.dask.org/v1/daskclusters": "DaskCluster", "kubernetes.dask.org/v1/daskautoscalers": "DaskAutoscaler",
}  # fmt: skip

Object = dict[str, Any]
Step = Callable[["Cluster"], None]

_MOMENT_SECONDS = 0.02


class Cluster(KubernetesEmulator):
    """One namespace of a cluster without nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Step] = []
        self.unwatchable: set[str] = set()
        self.is_away = False
        self._n_cuts = 0
        self._lists: dict[str, dict[str, Object]] = {}
        self.after_write: Step = lambda _: None
        self.logs: dict[str, list[str]] = {}
        self.requested: list[str] = []
        for key, kind in KINDS.items():
            verbs = {"get", "list", "watch", "create", "delete", "patch"}
            self.resources[key] = {
                "kind": kind, "namespaced": True, "singular": kind.lower(), "verbs": verbs,
                "shortnames": set(), "categories": set(), "subresources": {"log"} if kind == "Pod" else set(),
            }  # fmt: skip

    async def _handle(self, request: Any) -> aiohttp.web.StreamResponse:
        verb = "WATCH" if request.params.get("watch") == "true" else request.method.value
        self.requested.append(f"{verb} {request.url.path}")
        if request.url.path.startswith("/openapi/v3"):
            return aiohttp.web.json_response(self._openapi(request.url.path))
        if self.is_away:
            return _refusal(503, "ServiceUnavailable", "away for a minute")
        if request.subresource == "log":
            return await self._log(request)
        if request.method.value == "POST":
            request.data["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._time()}
        kind = None if request.resource is None else request.resource.plural
        if request.method.value == "GET" and kind is not None and request.name is None:
            if request.params.get("watch") != "true":
                return aiohttp.web.json_response(self._listed(request))
            if kind in self.unwatchable:
                return _refusal(403, "Forbidden", f"{kind} is forbidden: cannot watch resource")
            if kind == "pods":
                self.go_on()
            return await self._watch(request)
        response = await super()._handle(request)
        if request.method.value == "DELETE":
            self._collect_garbage()
        if request.method.value in ("POST", "PATCH"):
            self.after_write(self)
        return response

    async def _serve_version(self, request: Any) -> Any:
        """Core kinds are of "v1", not of "/v1"."""
        found = await super()._serve_version(request)
        return found | {"groupVersion": found["groupVersion"].lstrip("/")}

    def _time(self) -> str:
        """A time that grows with the number of objects."""
        return f"2026-11-23T12:00:{len(self.objects):02}Z"

    def _openapi(self, path: str) -> Object:
        """All that kubectl wants to know here: that the server itself looks for unknown fields."""
        groups = {"api/v1" if key.startswith("v1/") else f"apis/{key.rpartition('/')[0]}" for key in KINDS}
        if path == "/openapi/v3":
            return {"paths": {group: {"serverRelativeURL": f"/openapi/v3/{group}"} for group in groups}}
        version = path.removeprefix("/openapi/v3/")
        paths = {}
        for key, kind in KINDS.items():
            group, _, number = key.rpartition("/")[0].rpartition("/")
            patch = {
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
            }
            paths[f"/{version}/{kind}"] = {"patch": patch}
        return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}

    async def _watch(self, request: Any) -> aiohttp.web.StreamResponse:
        """What changes from one list to the next, beginning with the one that kubectl has had."""
        before = self._lists[request.params["resourceVersion"]]
        async with _stream(request) as (response, is_open):
            n_cuts = self._n_cuts
            while is_open() and not self.is_away and self._n_cuts == n_cuts:
                after = _by_name(self._listed(request))
                changes = [("DELETED", each) for name, each in before.items() if name not in after]
                changes += [("ADDED", each) for name, each in after.items() if name not in before]
                changes += [("MODIFIED", each) for name, each in after.items() if each != before.get(name, each)]
                for kind, each in changes:
                    await response.write(json.dumps({"type": kind, "object": each}).encode() + b"\n")
                before = after
                await asyncio.sleep(_MOMENT_SECONDS)
        return response

    async def _log(self, request: Any) -> aiohttp.web.StreamResponse:
        since = request.params.get("sinceTime", "").rstrip("Z")  # whole seconds: their fractions come after them
        follows, n_written = request.params.get("follow") == "true", 0
        async with _stream(request) as (response, is_open):
            while is_open() and not self.is_away:
                runs = self._runs(request.name)
                lines = [line for line in self.logs.get(request.name, []) if line >= since]
                await response.write("".join(f"{line}\n" for line in lines[n_written:]).encode())
                if not (follows and runs):
                    break
                if len(lines) == n_written:
                    self.go_on()
                    await asyncio.sleep(_MOMENT_SECONDS)
                n_written = len(lines)
        return response

    def _runs(self, pod: str) -> bool:
        found = [each for each in self.stored("Pod") if each["metadata"]["name"] == pod]
        return any("running" in state for each in found for state in container_states(each, "state"))

    def _listed(self, request: Any) -> Object:
        kind = self.resources[request.resource].kind
        api = "/".join(part for part in (request.resource.group, request.resource.version) if part)
        wanted = dict(pair.split("=") for pair in request.params.get("labelSelector", "").split(",") if pair)
        found = [each for each in self.stored(kind) if wanted.items() <= each["metadata"].get("labels", {}).items()]
        version = str(len(self._lists) + 1)
        listed = {"kind": f"{kind}List", "apiVersion": api, "metadata": {"resourceVersion": version}, "items": found}
        self._lists[version] = _by_name(listed)
        return listed

    def _collect_garbage(self) -> None:
        """Delete what has lost its owner, until nothing more has."""
        there = {each["metadata"].get("uid") for kind in KINDS.values() for each in self.stored(kind)}
        lost = [
            each
            for each in self.objects.values()
            if not each.deleted
            and (owners := each.raw["metadata"].get("ownerReferences"))
            and not there & {owner["uid"] for owner in owners}
        ]
        for each in lost:
            each.delete()
        if lost:
            self._collect_garbage()

    # -- what tests say and ask

    def go_on(self) -> None:
        """Do the next step of the script: when pods' watch begins, and when a driver that runs has no more to say."""
        if self.script and not self.job["spec"]["suspend"]:
            self.script.pop(0)(self)

    def cut(self) -> None:
        """End all watches, as a server does now and then."""
        self._n_cuts += 1

    def stored(self, kind: str) -> list[Object]:
        """Objects of a kind as they are now."""
        plural = next(key.rpartition("/")[2] for key, value in KINDS.items() if value == kind)
        return [each.raw for key, each in self.objects.items() if key[0].plural == plural and not each.deleted]

    @property
    def job(self) -> Object:
        """The driver's Job."""
        return of_component(self.stored("Job"), "driver")

    @property
    def started(self) -> set[str]:
        """Roles whose Jobs are not suspended."""
        jobs = [each for each in self.stored("Job") if not each["spec"].get("suspend")]
        return {each["metadata"]["labels"][COMPONENT] for each in jobs}

    def put(self, key: str, name: str, content: Object) -> None:
        """Store an object."""
        metadata = {"name": name, "namespace": NAMESPACE} | content.get("metadata", {})
        kinds = {"apiVersion": key.rpartition("/")[0], "kind": KINDS[key]}
        self.objects[key, NAMESPACE, name] = content | kinds | {"metadata": metadata}

    def start_pod(self, role: str, suffix: str, status: Object) -> str:
        """A pod from the template of the role's stored Job; its name."""
        owner = of_component(self.stored("Job"), role)
        name = f"{owner['metadata']['name']}-{suffix}"
        pod = copy.deepcopy(owner["spec"]["template"])
        pod["metadata"] |= {"ownerReferences": [{"uid": owner["metadata"]["uid"]}]}
        pod["metadata"]["creationTimestamp"] = self._time()
        self.put("v1/pods", name, pod | {"status": _named(status, role)})
        return name

    def set_status(self, name: str, status: Object) -> None:
        """What a kubelet reports of a pod."""
        pod = self.objects["v1/pods", NAMESPACE, name]
        pod.patch({"status": _named(status, pod.raw["metadata"]["labels"][COMPONENT])})

    def end_job(self, kind: str, reason: str = "") -> None:
        """What the Job's controller reports at the end."""
        status = {"conditions": [{"type": kind, "status": "True", "reason": reason}]}
        self.objects["batch/v1/jobs", NAMESPACE, self.job["metadata"]["name"]].patch({"status": status})


@asynccontextmanager
async def _stream(request: Any) -> AsyncIterator[tuple[aiohttp.web.StreamResponse, Callable[[], bool]]]:
    """An answer that is written bit by bit, and whether somebody still reads it."""
    response = aiohttp.web.StreamResponse(headers={"Content-Type": "application/json"})
    transport = request._raw_request.transport
    with contextlib.suppress(ConnectionError):
        await response.prepare(request._raw_request)
        yield response, lambda: not transport.is_closing()


def _refusal(code: int, reason: str, message: str) -> aiohttp.web.Response:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return aiohttp.web.json_response(status | {"message": message}, status=code)


def _by_name(listed: Object) -> dict[str, Object]:
    return {each["metadata"]["name"]: copy.deepcopy(each) for each in listed["items"]}


def _named(status: Object, role: str) -> Object:
    """A pod's status, where "it" is the role's container."""
    found = copy.deepcopy(status)
    for each in found.get("containerStatuses", []):
        each["name"] = role if each["name"] == "it" else each["name"]
    return found


@contextmanager
def served(directory: Path) -> Iterator[tuple[Cluster, Path]]:
    """A cluster, and the configuration by which kubectl finds it."""
    started, stop, found = threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        async with Cluster() as cluster, Server(cluster):
            found.append(cluster)
            started.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(30)
    configuration = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": str(found[0].url).rstrip("/")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "namespace": NAMESPACE, "user": "test"}}],
        "users": [{"name": "test", "user": {}}],
    }  # fmt: skip
    (directory / "kubeconfig").write_text(yaml.safe_dump(configuration))
    try:
        yield found[0], directory / "kubeconfig"
    finally:
        found[0].is_away = True
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
