"""Ranks are those that Lightning reads, whatever started the processes."""

import os
import sys
import types

import pytest
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from domaintune.errors import UsageError
from domaintune.runs.ranks import MPI, RANKS, is_first_process, is_one_of_several, is_started_again, launcher

SLURM = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "tune"}
SLURM |= {"SLURM_JOB_ID": "5", "SLURM_NTASKS_PER_NODE": "2"}
INTERACTIVE = {**SLURM, "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0"}
LSF = {"LSB_JOBID": "5", "LSB_DJOB_RANKFILE": "hosts", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "2"}
LSF |= {"JSM_NAMESPACE_RANK": "1"}
ENVIRONMENTS = {
    "torchrun": (TORCHRUN, TorchElasticEnvironment, "torchrun"),
    "torchrun in a job of SLURM": ({**SLURM, "SLURM_PROCID": "0", **TORCHRUN}, TorchElasticEnvironment, "torchrun"),
    "srun": (SLURM, SLURMEnvironment, "slurm"),
    "Lightning in an interactive job of SLURM": ({**INTERACTIVE, "LOCAL_RANK": "1"}, LightningEnvironment, None),
    "jsrun": (LSF, LSFEnvironment, "lsf"),
    "Lightning": ({"LOCAL_RANK": "1"}, LightningEnvironment, None),
}


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that started this test."""
    known = (*RANKS.values(), *MPI, *MPI.values(), *SLURM, *TORCHRUN, *LSF, "NODE_RANK")
    for key in {*known} & os.environ.keys():
        monkeypatch.delenv(key)


def test_a_job_whose_task_is_not_named_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `salloc -n 2` leaves it where srun is forgotten."""
    started(monkeypatch, {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "tune", "SLURM_JOB_ID": "5"})
    with pytest.raises(UsageError, match="start the command with srun"):
        is_first_process()


@pytest.mark.parametrize("count", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_command_that_was_started_again_is_known(monkeypatch: pytest.MonkeyPatch, count: str) -> None:
    for value, again in (("", False), ("0", False), ("2", True)):
        monkeypatch.setenv(count, value)
        assert is_started_again() is again


def started(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_ranks_are_read_as_lightning_reads_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, environment, found = ENVIRONMENTS[name]
    started(monkeypatch, variables)
    asked = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment, LightningEnvironment)
    assert next(each for each in asked if each.detect()) is environment, "as Lightning asks them"
    assert launcher() == found
    assert not is_first_process()
    assert is_one_of_several() is (found is not None)
    rank = next((key for key in RANKS.values() if variables.get(key) == "1" and found), "LOCAL_RANK")
    monkeypatch.setenv(rank, "0")
    assert is_first_process()


def test_under_mpi_ranks_are_those_of_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"})
    assert launcher() is None, "Lightning asks mpi4py, which is not installed"
    monkeypatch.setitem(sys.modules, "mpi4py", types.ModuleType("mpi4py"))
    sys.modules["mpi4py"].__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    assert launcher() == "mpi"
    assert is_one_of_several()
    assert not is_first_process()
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert is_first_process()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert launcher() is None


@pytest.mark.parametrize("key", ["NODE_RANK", "GROUP_RANK", "LOCAL_RANK"])
def test_of_several_machines_the_first_process_is_on_the_first(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_first_process()
    monkeypatch.setenv(key, "1")
    assert not is_first_process()


def test_a_single_job_of_slurm_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, {**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"})
    assert launcher() == "slurm"
    assert not is_one_of_several()
