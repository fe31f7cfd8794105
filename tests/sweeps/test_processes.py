import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from domaintune.sweeps.process_launcher import shared_out
from domaintune.sweeps.processes import TrialProcess


def wait_until(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_and_exit_status(tmp_path):
    (tmp_path / "log").write_text("before\n")
    program = "import sys; print('said'); print('louder', file=sys.stderr); sys.exit(7)"
    process = TrialProcess([sys.executable, "-c", program], tmp_path / "log", {})
    assert process.wait() == 7
    assert set(process.printed().split()) == {"said", "louder"}
    assert (tmp_path / "log").read_text().startswith("before\n")


def test_what_a_trial_has_started_ends_with_it(tmp_path):
    process = TrialProcess(["/bin/sh", "-c", "sleep 100 & echo $!; exit 3"], tmp_path / "log", {})
    assert process.wait() == 3
    wait_until(lambda: not alive(int(process.printed())))


def test_a_signal_is_told_from_an_exit_status(tmp_path):
    process = TrialProcess(["sleep", "100"], tmp_path / "log", {})
    process.stop()
    assert process.wait() == -signal.SIGTERM


def test_a_killed_parent_takes_trials_and_grandchildren_with_it(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from domaintune.sweeps.processes import TrialProcess\n"
        "TrialProcess(['/bin/sh', '-c', 'sleep 100 & echo $$ $!; wait'], Path(sys.argv[1]), {})\n"
        "time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log")])
    try:
        wait_until(lambda: (tmp_path / "log").exists() and len((tmp_path / "log").read_text().split()) == 2)
        trial = [int(pid) for pid in (tmp_path / "log").read_text().split()]
        assert all(alive(pid) for pid in trial)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(alive(pid) for pid in trial))


def test_threads_and_devices_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert shared_out(1, 0) == {}
    assert shared_out(2, 0) == {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "0,2"}
    assert shared_out(2, 1) == {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "1"}
    assert [shared_out(4, place)["CUDA_VISIBLE_DEVICES"] for place in range(4)] == ["0", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert shared_out(16, 0) == {"OMP_NUM_THREADS": "1"}
