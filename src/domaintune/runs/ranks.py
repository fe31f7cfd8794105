"""Which process of a run in several processes this one is, known before torch is imported.

The environment is read in the order in which Lightning's environments are asked, so that both always agree:
https://lightning.ai/docs/pytorch/stable/extensions/plugins.html#cluster-environments
"""

import os
from importlib.util import find_spec

from domaintune.errors import UsageError

INTERACTIVE = ("bash", "interactive")  # names of SLURM's jobs in which one works: there Lightning starts the processes
LSF = {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"}
MPI = {"OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK", "PMI_SIZE": "PMI_RANK"}  # of Open MPI, and of MPICH and Intel's
RANKS = {"torchrun": "RANK", "slurm": "SLURM_PROCID", "lsf": "JSM_NAMESPACE_RANK"}


def launcher() -> str | None:
    """What started the processes of this run: `torchrun`, `slurm`, `lsf`, `mpi`; None where Lightning starts them."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # also inside a job of SLURM
        return "torchrun"
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE:
        return "slurm"
    if os.environ.keys() >= LSF:
        return "lsf"
    return "mpi" if find_spec("mpi4py") and _mpi_rank() is not None else None


def is_started_again() -> bool:
    """Whether SLURM has queued this job anew, or torchrun has started its processes once more."""
    return any(int(os.environ.get(name) or 0) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))


def is_one_of_several() -> bool:
    """Whether this process was started with others, which run the same command."""
    found = launcher()
    return found is not None and (found != "slurm" or int(os.environ["SLURM_NTASKS"]) > 1)


def is_first_process() -> bool:
    """Whether this process has rank 0 among all of the run, or is the only one."""
    found = launcher()
    if found == "mpi":
        return _mpi_rank() == 0
    if found is not None:
        if RANKS[found] not in os.environ:
            hint = ": start the command with srun, or unset SLURM_NTASKS" * (found == "slurm")
            raise UsageError(f"{found} has started this process, and {RANKS[found]} doesn't say which it is{hint}")
        return int(os.environ[RANKS[found]]) == 0
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0))
    return int(node) == 0 and int(os.environ.get("LOCAL_RANK", 0)) == 0


def _mpi_rank() -> int | None:
    """The rank among several processes of MPI; None where there is one."""
    sizes = (size for size in MPI if int(os.environ.get(size, 1)) > 1)
    return next((int(os.environ[MPI[size]]) for size in sizes), None)
