"""What every worker does when it starts."""

from __future__ import annotations

from distributed import Worker, WorkerPlugin


class WorkerSetup(WorkerPlugin):  # type: ignore[misc]
    """One thread per library: the parallelism is that of the workers, one case each."""

    name = "prognosis-worker-setup"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        """Called by Dask on each worker, and on those that join later.

        SimpleITK starts as many threads as there are cores in every process and does not read OMP_NUM_THREADS;
        BLAS and OpenMP are held to one thread by Dask's nannies already.
        """
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
