"""Objects of Kubernetes as plain data: the labels that ours have, and their YAML."""

from collections.abc import Iterable
from typing import Any

import yaml

Object = dict[str, Any]

PART_OF = "distcluster"
COMPONENT = "app.kubernetes.io/component"
"""The label that names a role: scheduler, worker or driver."""


def labels(name: str, component: str | None = None) -> dict[str, str]:
    """Labels of a submission's objects; with a component, of one role's."""
    common = {"app.kubernetes.io/name": PART_OF, "app.kubernetes.io/instance": name}
    return common if component is None else common | {COMPONENT: component}


def of_component(objects: Iterable[Object], role: str) -> Object:
    """The object that makes a role's pods."""
    (found,) = [each for each in objects if each["metadata"].get("labels", {}).get(COMPONENT) == role]
    return found


def to_yaml(objects: Iterable[Object]) -> str:
    """The objects as YAML documents, multi-line strings as blocks, keys in the order they were given."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper without aliases, which kubectl reads and people do not."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
