"""The commands for Kubernetes: submit, attach, jobs, logs, cancel, tls-secret."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from distcluster import kubernetes
from distcluster.cli.options import Context, Dashboard, JobFile, Name, Namespace, Overrides
from distcluster.cli.terminal import open_console, say, tell
from distcluster.errors import INTERRUPTED, TRY_AGAIN, JobError

if TYPE_CHECKING:
    from distcluster.kubernetes.kubectl import Kubectl
    from distcluster.kubernetes.objects import Object

kubernetes_commands = typer.Typer()


class Detached(SystemExit):
    """Ctrl-C while following: the job goes on."""


@kubernetes_commands.command()
def submit(
    job_file: JobFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the manifests; needs no cluster, no kubectl and no store.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Worker pods; wins over deploy.n_workers.")] = None,
    image: Annotated[str | None, typer.Option(help="Image of all pods; wins over deploy.image.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Where the pods run; wins over deploy.namespace.")] = None,
    name: Annotated[str | None, typer.Option(help="The submission's name; by default a new one each time.")] = None,
    context: Context = None,
    overlay: Annotated[
        list[Path] | None,
        typer.Option(help="A kustomize component on top, such as k8s/components/spot; may be repeated.", metavar="DIR"),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="manifests, or operator: a DaskCluster for the dask-kubernetes operator.")
    ] = "manifests",
    dashboard: Dashboard = False,
) -> None:
    """Submit a job to Kubernetes and follow it. What an earlier submission to the same output did is not done again.

    Exits with the job's own code. Ctrl-C stops following, not the job.

    [dim]distcluster submit JOB.toml --image registry.example.com/distcluster:0.1.0 --workers 8[/dim]
    """
    flags = {"n_workers": workers, "image": image, "namespace": namespace}
    deploy = [f"deploy.{key}={value}" for key, value in flags.items() if value is not None]
    if backend not in kubernetes.submit.BACKENDS:
        raise JobError(f"--backend {backend}: must be one of {', '.join(kubernetes.submit.BACKENDS)}.")
    submission = kubernetes.submit.prepare(job_file, overrides or [], deploy, name)
    objects = kubernetes.submit.objects_of(submission, overlay or [], backend)
    if dry_run:
        typer.echo(kubernetes.objects.to_yaml(objects), nl=False)
        return
    driver = kubernetes.objects.of_component(objects, "driver")  # an overlay may have set its namespace
    kubectl = kubernetes.kubectl.Kubectl(context, driver["metadata"].get("namespace"))
    kubernetes.submit.refuse_missing(kubectl, submission.deploy)
    if submission.deploy.tls:
        from distcluster.execution.connect import new_certificate

        objects.append(kubernetes.manifests.tls_secret(submission.name, kubectl.namespace, new_certificate()))
    kubernetes.submit.apply(kubectl, objects)
    say(f"Submitted as {submission.name}.")
    _follow(kubectl, submission.name, dashboard)


@kubernetes_commands.command()
def attach(name: Name, namespace: Namespace = None, context: Context = None, dashboard: Dashboard = False) -> None:
    """Follow a submission again: its log from the start, then as it comes; exits with the job's own code."""
    kubectl = kubernetes.kubectl.Kubectl(context, namespace)
    _require(kubectl, name)
    _follow(kubectl, name, dashboard)


@kubernetes_commands.command()
def jobs(
    namespace: Namespace = None,
    context: Context = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
) -> None:
    """List submissions and how they are."""
    selector = f"app.kubernetes.io/name={kubernetes.objects.PART_OF},app.kubernetes.io/component=driver"
    where = ["--all-namespaces"] if everywhere else []
    found = kubernetes.kubectl.Kubectl(context, namespace).get("jobs", "--selector", selector, *where)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "namespace", "state", "age"):
        table.add_column(column)
    for job in sorted(found, key=lambda each: str(each["metadata"].get("creationTimestamp"))):
        meta = job["metadata"]
        cells = (meta["labels"]["app.kubernetes.io/instance"], meta.get("namespace", ""), _state(job), _age(job))
        table.add_row(*cells)
    open_console().print(table, highlight=False)


@kubernetes_commands.command()
def logs(
    name: Name,
    every_pod: Annotated[bool, typer.Option("--all", help="Scheduler and workers too, not only the driver.")] = False,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print what a submission's pods have said; of one that is over, what was kept on this machine."""
    kubectl = kubernetes.kubectl.Kubectl(context, namespace)
    pods = kubernetes.submitted.look(kubectl, name).pods
    directory = kubernetes.pod_logs.keep_logs(kubectl, name, pods) if pods else kubernetes.pod_logs.kept_directory(name)
    files = sorted(directory.glob("*.log" if every_pod else f"{name}-driver*.log"))
    if not files:
        raise JobError(f"no pods of {name} are there, and no logs were kept in {directory}")
    for file in files:
        tell(f"==> {file.stem} <==\n{file.read_text()}")


@kubernetes_commands.command()
def cancel(name: Name, namespace: Namespace = None, context: Context = None) -> None:
    """Stop a submission and remove its pods, logs kept. What was committed stays: submit again to go on."""
    kubectl = kubernetes.kubectl.Kubectl(context, namespace)
    _require(kubectl, name)
    _clean_up(kubectl, name)


@kubernetes_commands.command()
def tls_secret(
    name: Annotated[str, typer.Argument(help="The submission's name, as submit --dry-run --name got it.")],
    namespace: Annotated[str | None, typer.Option(help="Where the pods run.")] = None,
) -> None:
    """Print a Secret with a fresh certificate, valid for a year, for pods that submit --dry-run rendered.

    [dim]distcluster tls-secret first | kubectl create -f -[/dim]
    """
    from distcluster.execution.connect import new_certificate

    typer.echo(
        kubernetes.objects.to_yaml([kubernetes.manifests.tls_secret(name, namespace, new_certificate())]), nl=False
    )


def _follow(kubectl: "Kubectl", name: str, dashboard: bool) -> None:
    """Follow to the end, keep the logs, clean up, and leave with the job's code."""
    where = "".join(f" --{key} {value}" for key, value in _place(kubectl).items())
    forward = kubernetes.forward.DashboardForward(kubectl, f"{name}-scheduler", say)
    if not dashboard:
        command = kubectl.argv("port-forward", f"service/{name}-scheduler", str(kubernetes.submission.DASHBOARD_PORT))
        say(f"Dashboard: `{' '.join(command)}`, then http://localhost:{kubernetes.submission.DASHBOARD_PORT}/status")
    try:
        ended = kubernetes.follow.follow(kubectl, name, say, tell, forward.keep_open if dashboard else lambda _: None)
    except KeyboardInterrupt:
        say(
            f"Detached: the job goes on. `distcluster attach {name}{where}` follows it again, "
            f"`distcluster cancel {name}{where}` stops it."
        )
        raise Detached(INTERRUPTED) from None
    except kubernetes.kubectl.KubectlError as error:
        say(f"{error}\nThe job may go on: `distcluster attach {name}{where}` follows it again.")
        raise typer.Exit(TRY_AGAIN) from error
    finally:
        forward.close()
    if ended.sentence:
        say(ended.sentence)
    _clean_up(kubectl, name)
    raise typer.Exit(ended.code)


def _place(kubectl: "Kubectl") -> dict[str, str]:
    given = {"namespace": kubectl.namespace, "context": kubectl.context}
    return {key: value for key, value in given.items() if value is not None}


def _require(kubectl: "Kubectl", name: str) -> None:
    if kubernetes.submitted.look(kubectl, name).job is None:
        raise JobError(f"no submission {name} here: `distcluster jobs --all-namespaces` lists them")


def _clean_up(kubectl: "Kubectl", name: str) -> None:
    """Delete the Job, which owns everything else, once the logs are here."""
    seen = kubernetes.submitted.look(kubectl, name)
    if seen.pods:
        say(f"Logs: {kubernetes.pod_logs.keep_logs(kubectl, name, seen.pods)}")
    if seen.job is not None:
        kubectl.delete("job", seen.job["metadata"]["name"])


def _state(job: "Object") -> str:
    status = job.get("status", {})
    for condition in status.get("conditions", []):
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            return "done" if condition["type"] == "Complete" else f"failed ({condition.get('reason', 'unknown')})"
    if job["spec"].get("suspend"):
        return "not started: its submit was killed, or is under way"
    failures = status.get("failed", 0)
    running = "running" if status.get("ready") else "waiting for its driver"
    return running + (f", {failures} failed attempts" if failures else "")


def _age(job: "Object") -> str:
    created = job["metadata"].get("creationTimestamp")
    if created is None:
        return ""
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds())
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"
