"""Job files for pods, whose files lie on the volume that all of them mount."""

import json
from pathlib import Path
from typing import Any

from conftest import SMALL

PLANTED: dict[str, Any] = {key: value for key, value in SMALL.items() if not key.startswith("deploy.")} | {
    "mixture.n_components": [4, 8, 16],
    "input.url": "/data/input.zarr",
}
"""Settings for the planted input of most tests, or one like it."""


def write_job(directory: Path, name: str, image: str, settings: dict[str, Any], **changes: Any) -> Path:
    """A job file in the directory; its name and its output's are one, unless a change says otherwise."""
    settings = settings | {
        "output.url": f"/data/{name}",
        "deploy.volume": "shared",
        "deploy.image": image,
        "deploy.worker_memory": "1GiB",
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    path = directory / f"{name}.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()) + "\n")
    return path
