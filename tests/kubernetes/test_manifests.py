"""What is rendered is what kustomize makes of k8s/base, holds together, and is refused before any cluster sees it."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from distcluster.errors import JobError
from distcluster.kubernetes.dask_operator import for_operator
from distcluster.kubernetes.manifests import render
from distcluster.kubernetes.objects import to_yaml
from distcluster.kubernetes.submit import prepare

K8S = Path(__file__).parents[2] / "k8s"
DEFAULT = K8S / "base" / "job.toml"

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")


def kustomize(directory: Path) -> list[dict[str, Any]]:
    """The objects that kustomize makes of a directory."""
    done = subprocess.run(["kubectl", "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def by_name(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects), "two objects of one name"
    return found


@needs_kubectl
def test_the_default_rendering_is_what_kustomize_makes_of_the_base() -> None:
    assert by_name(render(prepare(DEFAULT, name="distcluster"))) == by_name(kustomize(K8S / "base"))


@needs_kubectl
def test_the_operators_rendering_is_what_kustomize_makes_of_its_directory() -> None:
    submission = prepare(DEFAULT, name="distcluster")
    rendered = for_operator(submission, render(submission))
    assert by_name(rendered) == by_name(kustomize(K8S / "operator" / "cluster"))


def test_a_dry_run_prints_the_rendering_and_imports_nothing_that_computes(tmp_path: Path) -> None:
    argv = ["submit", str(DEFAULT), "--dry-run", "--name", "first"]
    program = (
        f"import sys\nfrom distcluster.cli.main import main\nsys.argv[1:] = {argv}\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'dask', 'distributed', 'numba', 'umap', 'faiss'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PATH": str(tmp_path)}
    )
    assert done.stdout == to_yaml(render(prepare(DEFAULT, name="first")))
    assert done.stderr.strip() == "[]"


def test_the_job_reaches_the_driver_byte_for_byte_and_overrides_as_arguments(tmp_path: Path) -> None:
    text = '# ünïcode, "quotes" and a tab\t\ninput.url = "s3://b/in"\noutput.url = "s3://b/out"\n'
    (tmp_path / "My job.toml").write_text(text)
    submission = prepare(tmp_path / "My job.toml", ["sample.rows=20000"], ["deploy.n_workers=7"])
    objects = by_name(list(yaml.safe_load_all(to_yaml(render(submission)))))
    assert objects["ConfigMap", f"{submission.name}-job"]["data"] == {"job.toml": text}
    driver = objects["Job", f"{submission.name}-driver"]["spec"]["template"]["spec"]["containers"][0]
    assert driver["args"][7:] == ["--set", "deploy.kind=kubernetes", "--set", "sample.rows=20000"]
    assert objects["Job", f"{submission.name}-worker"]["spec"]["parallelism"] == 7
    assert submission.name.startswith("my-job-")
    assert prepare(tmp_path / "My job.toml").name != submission.name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("deploy.image=registry:5000/distcluster", "must name a version"),
        ("deploy.image=distcluster:latest", "must name a version"),
        ("deploy.worker_memory=plenty", "must be a size"),
        ("deploy.worker_memory=100MiB", "at least 256MiB"),
        ("deploy.namespace=My_Team", "deploy.namespace"),
        ("deploy.n_workers=0", "deploy.n_workers"),
        ("input.url=data/embeddings.zarr", "pods cannot see"),
        ("output.url=/data/../tmp/run", "pods cannot see"),
        ('report.labels=["labels.txt"]', "pods cannot see"),
        ("predict.model=runs/demo", "pods cannot see"),
        ("mixture.previous=runs/last", "pods cannot see"),
    ],
)
def test_what_pods_cannot_do_is_refused_from_here(override: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        prepare(DEFAULT, [override, "deploy.volume=shared"])


def test_paths_on_the_volume_are_seen_and_mounted() -> None:
    submission = prepare(DEFAULT, ["input.url=/data/in.zarr", "output.url=file:///data/out", "deploy.volume=shared"])
    pods = [each["spec"]["template"]["spec"] for each in render(submission) if "template" in each.get("spec", {})]
    claims = [volume["persistentVolumeClaim"] for pod in pods for volume in pod["volumes"] if volume["name"] == "data"]
    assert claims == [{"claimName": "shared"}] * 3
