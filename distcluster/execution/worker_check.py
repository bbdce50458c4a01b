"""Before the first task: whether every worker would compute the same bits, and sees the same files."""

import asyncio
import logging
from typing import Any

from distributed import Client

from distcluster.environment import differences, environment
from distcluster.errors import JobError, SchedulerLostError
from distcluster.job import InputTable
from distcluster.stages.matching import needs_previous, previous_of
from distcluster.storage.faults import storage_errors
from distcluster.storage.inputs import open_input
from distcluster.storage.run import Run
from distcluster.storage.settings import RunRef

log = logging.getLogger("distcluster")

SILENT_SECONDS = 30.0
"""How long a worker may be silent when another one has answered."""


async def check_workers(client: Client, run: Run, *, read_input: bool) -> None:
    """Refuse workers that compute other bits, or do not see the output, the input or the previous run they read.

    One that says nothing for half a minute after another has answered, or cannot be reached, is frozen, or cut off,
    and left out.

    Parameters
    ----------
    client : Client
        Asynchronous.
    run : Run
    read_input : bool
        Whether tasks will read the input.

    Raises
    ------
    JobError
        Naming every worker and what is wrong with it.
    SchedulerLostError
        When none answers.
    """
    probe = run.store.put_probe()
    table = run.job.input if read_input else None
    try:
        answers = await _ask(client, _look, run.ref, probe, table)
    finally:
        run.store.delete([probe])
    found = [
        f"{worker}: {line}"
        for worker, (facts, problems) in sorted(answers.items())
        for line in [*differences(dict(run.settings.environment), facts), *problems]
    ]
    if found:
        raise JobError("these workers cannot take part:\n" + "\n".join(f"  {line}" for line in found))


async def _ask(client: Client, *call: Any) -> dict[str, Any]:
    """What every worker answers to a function with its arguments; whom one waits for in vain is dismissed."""
    asked = {asyncio.ensure_future(client.run(*call, workers=[each])): each for each in await client.nthreads()}
    if not asked:
        raise SchedulerLostError("the workers have gone: see their logs, then run again")
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(asked, timeout=SILENT_SECONDS)
    silent = [each for each in asked if not each.done() or isinstance(each.exception(), OSError)]  # no connection
    if len(silent) == len(asked):
        raise SchedulerLostError("no worker answers: see their logs, then run again")
    for each in silent:
        each.cancel()
        log.warning("the worker %s does not answer and is left out", asked[each])
    if silent:
        await client.retire_workers(workers=[asked[each] for each in silent], close_workers=True)
    return {worker: answer for each in asked if each not in silent for worker, answer in each.result().items()}


@storage_errors()  # so that a connection that fails is told from a store
def _look(ref: RunRef, probe: str, table: InputTable | None) -> tuple[dict[str, str], list[str]]:
    """On a worker: its environment, and what it cannot see."""
    problems, run = [], Run(ref.url)
    if not run.store.has(probe):
        problems.append(f"does not see the output {ref.url}: it must be on storage that all machines share")
    elif needs_previous(run):
        try:
            previous_of(run)
        except JobError as error:
            problems.append(str(error))
    if table is not None:
        try:
            open_input(ref.input_url, table.array, table.raw)
        except JobError as error:
            problems.append(str(error))
    return environment(), problems
