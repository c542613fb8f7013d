"""A run that is killed at chosen system calls that change its files, and then resumed.

python kill_at_calls.py FOLDER CALL …: prints each call that a run makes there, and for each CALL, a
number of one, what is not the same once the run is resumed. A write is torn: half of it reaches
the file. For Linux on x86-64, by ptrace.
"""

import ctypes
import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # as the next: loaded once, before the runs are forked

import ddpm.training.train  # noqa: F401
from ddpm.checkpoint.run_dir import RunDir
from ddpm.config import Config, TrainConfig, UNetConfig
from runs import go_on, metrics, tensors

BY_FILE = {1: "write", 18: "pwrite", 20: "writev", 74: "fsync", 75: "fdatasync", 77: "ftruncate",
           91: "fchmod", 285: "fallocate"}  # fmt: skip
BY_NAME = {76: "truncate", 82: "rename", 83: "mkdir", 86: "link", 87: "unlink", 90: "chmod"}
IN_FOLDER = {257: "open", 258: "mkdir", 263: "unlink", 264: "rename", 265: "link", 268: "chmod",
             316: "rename"}  # fmt: skip
TRACEME, CONT_TO_CALL, SET_OPTIONS, GET_CALL = 0, 24, 0x4200, 0x420E
FOLLOW_AND_MARK = 1 | 2 | 4 | 8 | 0x100000  # calls are told from signals; forks and threads
ENTRY, WALL = 1, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Call(ctypes.Structure):
    _fields_ = (("op", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3), ("arch", ctypes.c_uint32),
                ("ip", ctypes.c_uint64), ("sp", ctypes.c_uint64), ("number", ctypes.c_uint64),
                ("args", ctypes.c_uint64 * 6))  # fmt: skip


def ptrace(request, pid, address=0, data=0):
    if libc.ptrace(request, pid, address, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def memory(pid, address, n):
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        file.seek(address)
        return file.read(n)


def changed_file(pid, call):
    """The kind of a call that changes a file, and the file; None for any other."""
    number, args = call.number, call.args
    if number in BY_FILE:
        return BY_FILE[number], os.readlink(f"/proc/{pid}/fd/{args[0]}")
    if number in BY_NAME:
        address = args[0]
    elif number in IN_FOLDER and (number != 257 or args[2] & (os.O_WRONLY | os.O_RDWR)):
        address = args[1]
    else:
        return None
    return (BY_NAME | IN_FOLDER)[number], os.fsdecode(memory(pid, address, 400).split(b"\0")[0])


def tear(pid, call, path):
    """Write half of what a call is to write."""
    handle, address, n = call.args[:3]
    about = Path(f"/proc/{pid}/fdinfo/{handle}").read_text().split()
    with open(path, "r+b") as file:
        append = int(about[3], 8) & os.O_APPEND
        file.seek(0, os.SEEK_END) if append else file.seek(int(about[1]))
        file.write(memory(pid, address, n // 2))


def traced(work, folder, kill_at=0):
    """The calls that change files in the folder while a process works, which is killed as it begins
    number `kill_at`."""
    main = os.fork()
    if main == 0:
        ptrace(TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()
        os._exit(0)
    os.waitpid(main, 0)
    ptrace(SET_OPTIONS, main, data=FOLLOW_AND_MARK)
    ptrace(CONT_TO_CALL, main)
    calls, call = [], Call()
    while True:
        pid, status = os.waitpid(-1, WALL)
        if not os.WIFSTOPPED(status):
            if pid == main:
                assert os.WIFSIGNALED(status) == bool(kill_at), (kill_at, status)
                return calls
            continue
        sent = os.WSTOPSIG(status)
        if sent == signal.SIGTRAP | 0x80:
            libc.ptrace(GET_CALL, pid, ctypes.sizeof(call), ctypes.addressof(call))
            found = changed_file(pid, call) if call.op == ENTRY else None
            if found and found[1].startswith(str(folder)):
                calls.append(f"{found[0]} {os.path.relpath(found[1], folder)}")
                if len(calls) == kill_at:
                    if found[0] == "write":
                        tear(pid, call, found[1])
                    os.kill(main, signal.SIGKILL)
                    continue
        ours = sent in (signal.SIGTRAP, signal.SIGTRAP | 0x80, signal.SIGSTOP)
        with suppress(ProcessLookupError):  # it has been killed meanwhile
            ptrace(CONT_TO_CALL, pid, data=0 if ours else sent)


def in_process(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the run did not end well"


def main(folder, kills):
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.save(folder / "a.npy", images)
    config = Config(
        data=str(folder / "a.npy"), steps=3, held_out=2,
        unet=UNetConfig(channels=4, mults=(1,), blocks=1, attention=(), groups=2),
        train=TrainConfig(batch=4, log_every=1, save_minutes=1e-6, sample_minutes=1e6),
    )  # fmt: skip
    config = replace(config, sample=replace(config.sample, steps=1))
    whole, run = folder / "whole", RunDir(folder / "run")
    calls = traced(lambda: go_on(config, whole), whole)
    for i, call in enumerate(calls, 1):
        print(i, call, flush=True)
    for kill_at in (i for i in kills if i <= len(calls)):
        shutil.rmtree(run.path, ignore_errors=True)
        *_, call = traced(lambda: go_on(config, run.path), run.path, kill_at)
        in_process(lambda: go_on(config, run.path))
        different = list(differences(run, RunDir(whole)))
        print(f"{', '.join(different) or 'same'} after {kill_at} {call}", flush=True)


def differences(run, whole):
    """Yield what of a run is not as in another: weights, files, lines of logs, leftovers."""
    a, b = tensors(run.path), tensors(whole.path)
    if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
        yield "weights"
    for name in ("model", "guide", "config", "held_out"):
        if getattr(run, name).read_bytes() != getattr(whole, name).read_bytes():
            yield name
    if [line["step"] for line in metrics(run.path)] != [
        line["step"] for line in metrics(whole.path)
    ]:
        yield "metrics"
    names, wanted = ({p.relative_to(r.path) for p in r.path.rglob("*")} for r in (run, whole))
    yield from map(str, names ^ wanted)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
