"""Kustomize components on top of what is rendered: ``submit --overlay``."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from distcluster.errors import JobError
from distcluster.kubernetes.kubectl import Kubectl
from distcluster.kubernetes.objects import Object, to_yaml


def overlaid(
    objects: list[Object], directories: Sequence[Path], convert: Callable[[list[Object]], list[Object]]
) -> list[Object]:
    """Objects with components on top, one after the other, as a backend wants them.

    Parameters
    ----------
    objects : list of dict
        Plain ones: a component need not know the backend.
    directories : sequence of Path
        Each holds a ``kustomization.yaml`` of ``kind: Component``.
    convert : callable
        Makes the backend's objects. A component that changes nothing before is tried behind it.

    Raises
    ------
    KubectlError
        When kustomize refuses a component, or kubectl is not there.
    JobError
        When a component changes nothing.
    """
    late = []
    for directory in directories:
        changed = _with_component(objects, directory)
        if changed is None:
            late.append(directory)
        else:
            objects = changed
    objects = convert(objects)
    for directory in late:
        changed = _with_component(objects, directory)
        if changed is None:
            raise JobError(
                f"--overlay {directory} changes nothing: its patches select none of the objects that --dry-run shows. "
                f"What makes pods is told apart by kind and by the label app.kubernetes.io/component."
            )
        objects = changed
    return objects


def _with_component(objects: list[Object], directory: Path) -> list[Object] | None:
    """The objects with a component on top; None where they are the same."""
    with tempfile.TemporaryDirectory() as work:
        Path(work, "rendered.yaml").write_text(to_yaml(objects))
        component = os.path.relpath(directory.resolve(), Path(work).resolve())  # kustomize takes only relative paths
        wanted = {"resources": ["rendered.yaml"], "components": [component]}
        Path(work, "kustomization.yaml").write_text(json.dumps(wanted))
        changed = list(yaml.safe_load_all(Kubectl().run("kustomize", work)))
    before = {_key(each): each for each in objects}
    if {_key(each): each for each in changed} == before:
        return None
    for each in changed:
        _keep_tolerations(before.get(_key(each), {}), each)
    return changed


def _key(each: Object) -> tuple[str, str]:
    return each["kind"], each["metadata"]["name"]


def _keep_tolerations(before: Object, after: Object) -> None:
    """Leave those that others have added: to kustomize they are one value, of which the last one counts."""
    pods = [each.get("spec", {}).get("template", {}).get("spec", {}) for each in (before, after)]
    earlier, later = (pod.get("tolerations", []) for pod in pods)
    if earlier:
        pods[1]["tolerations"] = earlier + [each for each in later if each not in earlier]
