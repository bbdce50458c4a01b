"""A finished run as a person in Python reads it."""

import html
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from distributed import Client

from distcluster import curation
from distcluster.api import choose_candidate, find_duplicates
from distcluster.deploy import DeployTable
from distcluster.errors import JobError
from distcluster.interactive import frames
from distcluster.interactive.clients import current_client, deploy_keys
from distcluster.interactive.plots import Plots
from distcluster.interactive.reporters import shown_progress
from distcluster.job import ReportTable
from distcluster.numerics.mixture.candidate import COVARIANCE_TYPES, Candidate, CovarianceType
from distcluster.numerics.mixture.selection import Verdict
from distcluster.report.made import report_url
from distcluster.report.near_duplicates import DISTANCE, duplicates
from distcluster.report.page import write_report
from distcluster.report.run_comparison import RunComparison, compare_runs
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.flow import require_finished
from distcluster.storage.layout import REPORT
from distcluster.storage.run import Run as StoredRun
from distcluster.url import Url

if TYPE_CHECKING:
    from distcluster.model import Model

_SHOWN_CLUSTERS = 10


class Run:
    """A finished run, to be read; ``cluster`` and ``open_run`` give one.

    What is asked for is read when it is asked for, and checked against the checksums that the run was written with.
    ``xarray.open_zarr(run)`` opens a local one.

    Parameters
    ----------
    url : str

    Raises
    ------
    JobError
        When there is no run at the URL, or it is not finished.

    Attributes
    ----------
    plot : Plots
        ``curves()`` and ``map()``.
    """

    def __init__(self, url: str) -> None:
        self._run = StoredRun(url)
        require_finished(self._run)
        self.plot = Plots(self._run)

    @property
    def url(self) -> str:
        """Where it lies, without credentials."""
        return str(self._run.url)

    def __fspath__(self) -> str:
        return self._run.url.whole

    def __len__(self) -> int:
        """Rows."""
        return self._run.partitioning.n_rows

    # -- what was found

    @cached_property
    def verdict(self) -> Verdict:
        """What was chosen, why, and how far to trust it; as a string the reason."""
        self._require_grid()
        facts = SELECT_CANDIDATE.facts_of(self._run)
        return Verdict(facts.candidate, facts.finding, facts.reason, facts.trust, facts.advice)

    @property
    def selection(self) -> pd.DataFrame:
        """The candidates, one a row, with their criteria; the columns are those of ``selection/`` in the run."""
        self._require_grid()
        return frames.selection(self._run)

    @property
    def clusters(self) -> pd.DataFrame:
        """The clusters by label: rows, share of all, mean probability, stability, the most typical rows and items."""
        self._require_grid()
        return frames.clusters(self._run)

    def labels(self) -> Any:
        """A Dask DataFrame of all rows, a partition of the run each, which its tasks read.

        Returns
        -------
        dask.dataframe.DataFrame
            By row number: the id where the job names one, label, probability, log density, support, and the label at
            each level of the hierarchy.
        """
        return frames.labels(self._run)

    def rows(self, cluster: int, n: int = 10) -> pd.DataFrame:
        """The n most typical rows of a cluster: those nearest to its mean, in Mahalanobis distance.

        Parameters
        ----------
        cluster : int
            Its label.
        n : int
            More than ten take a pass over all rows.

        Returns
        -------
        pandas.DataFrame
            By row number, the most typical first: the id where the job names one, the item where it is known,
            probability, distance, log density and support.
        """
        K = self.model_size
        if not 0 <= cluster < K:
            raise JobError(f"cluster = {cluster}: the run has the clusters 0 to {K - 1}.")
        if n < 1:
            raise JobError(f"n = {n}: must be 1 or more.")
        return frames.typical_rows(self._run, cluster, n)

    def balanced(
        self, n: int, *, level: int | None = None, seed: int = 0, without_duplicates: float | None = None
    ) -> pd.DataFrame:
        """Draw n rows as evenly over the clusters as can be: ``distcluster export --balanced``.

        Clusters that are smaller than their share are taken whole, and the others give more.

        Parameters
        ----------
        n : int
        level : int, optional
            Draw evenly over the level of the hierarchy with so many clusters, then over what each of them holds.
        seed : int
            The same seed draws the same rows, and of more rows these and others.
        without_duplicates : float, optional
            Of duplicates within this cosine distance the first alone; ``duplicates`` must have found them.

        Returns
        -------
        pandas.DataFrame
            By row number, ascending: the columns of ``labels``, and the item where it is known.

        Raises
        ------
        JobError
            When there are not so many rows, or no such level, or duplicates have not been looked for.
        """
        return frames.some_rows(
            self._run, curation.choose_rows(self._run, curation.Wanted(n, level, seed, without_duplicates))
        )

    @property
    def model_size(self) -> int:
        """K, the number of clusters, those without a row included."""
        return frames.n_clusters(self._run)

    def to_xarray(self) -> Any:
        """An ``xarray.Dataset`` of all arrays with an entry a row, read when they are asked for.

        Raises
        ------
        ImportError
            Without xarray: ``pip install 'distcluster[notebook]'``.
        """
        return frames.dataset(self._run)

    # -- what follows

    def model(self) -> "Model":
        """Its model, which labels other rows: ``load_model``."""
        from distcluster.model import load_model

        return load_model(self._run.url.whole)

    def choose(
        self,
        n_components: int,
        covariance_type: CovarianceType,
        *,
        fit: bool = False,
        client: Client | None = None,
        progress: bool = True,
    ) -> "Run":
        """Have another candidate in the chosen one's place, with all that follows from it: ``distcluster choose``.

        Parameters
        ----------
        n_components, covariance_type
            The candidate.
        fit : bool
            Fit it first where the grid does not have it.
        client, progress
            As ``cluster``'s.

        Returns
        -------
        Run
            A run of its own, within this one.

        Raises
        ------
        JobError
            When the grid has no such candidate.
        """
        if covariance_type not in COVARIANCE_TYPES:
            raise JobError(f"covariance_type = {covariance_type!r}: must be one of {', '.join(COVARIANCE_TYPES)}.")
        client = client if client is not None else current_client()
        deploy = DeployTable.model_validate(deploy_keys(client)) if client is not None else DeployTable()
        with shown_progress(progress) as reporter:
            wanted = Candidate(n_components, covariance_type)
            return Run(choose_candidate(self._run.url.whole, wanted, deploy, reporter, fit=fit).url.whole)

    def duplicates(
        self, distance: float = DISTANCE, *, client: Client | None = None, progress: bool = True
    ) -> pd.DataFrame:
        """Find the rows that are equal, or near duplicates: ``distcluster duplicates``.

        Every pair of rows within the distance is found; rows that pairs connect are a group. What was found is kept in
        the run, and a call that was stopped goes on.

        Parameters
        ----------
        distance : float
            Cosine distance; 0: equal rows only.
        client, progress
            As ``cluster``'s.

        Returns
        -------
        pandas.DataFrame
            A row for each row in a group: ``group``, ``row``, ``id`` where the job names one, ``representative`` (the
            first row of the group), ``distance`` to it, ``cluster``.

        Raises
        ------
        JobError
            When the input is gone, or the distance is not from 0 to below 1.
        """
        client = client if client is not None else current_client()
        deploy = DeployTable.model_validate(deploy_keys(client)) if client is not None else DeployTable()
        with shown_progress(progress) as reporter:
            find_duplicates(self._run.url.whole, distance, deploy, reporter)
        return duplicates(self._run, distance)

    def compare(self, other: "Run | str | Url") -> RunComparison:
        """Compare it with another finished run by the rows that both have: ``distcluster compare``.

        Parameters
        ----------
        other : Run, str or path
            Another run, a choice, or a prediction.

        Returns
        -------
        RunComparison
            ``counts``, common rows by both labels; ``scores`` and their ``errors``; ``events``; the clusters ``before``
            (this run's) and ``after``, with where their rows are; ``write_html(path)``.

        Raises
        ------
        JobError
            When the other is no finished run, or they have no rows in common.
        """
        return compare_runs(self._run, (other if isinstance(other, Run) else open_run(other))._run)

    def report(self) -> str:
        """The report's path or URL; it is written where it is missing."""
        if self._run.store.has(REPORT):
            return report_url(self._run)
        return write_report(self._run, ReportTable())

    # -- for people

    def _require_grid(self) -> None:
        if self._run.is_prediction:
            raise JobError(f"the run {self.url} has another run's model: that run has the verdict and the clusters.")

    def __repr__(self) -> str:
        what = "labelled by another run's model" if self._run.is_prediction else str(self.verdict.candidate)
        return f"Run({self.url!r}, {len(self):,} rows, {what})"

    def _repr_html_(self) -> str:
        """The verdict, and the largest clusters."""
        name = f"<p><code>{html.escape(self.url)}</code>, {len(self):,} rows</p>"
        if self._run.is_prediction:
            return name
        largest = self.clusters.sort_values("rows", ascending=False, kind="stable")
        table = largest[largest.rows > 0].head(_SHOWN_CLUSTERS).to_html(float_format="{:.3g}".format)
        n_filled = int(np.count_nonzero(largest.rows))
        count = f"<p>{n_filled:,} clusters, the largest first:</p>"
        why = (f"<p>{html.escape(each)}</p>" for each in (self.verdict.advice, self.verdict.reason))
        return f"{name}{''.join(why)}{count}{table}"


def open_run(url: str | Url) -> Run:
    """Open a finished run.

    Parameters
    ----------
    url : str or path
        What ``cluster`` or ``distcluster run`` has written.

    Raises
    ------
    JobError
        When there is no run, or it is not finished.
    """
    return Run(url.whole if isinstance(url, Url) else str(url))
