"""Several processes as a launcher starts them, forked from one that has loaded what they need."""

import logging
import multiprocessing
import os
import sys
import time
from types import SimpleNamespace

import torch

from ddpm import UserError, train
from ddpm.config import read_toml
from servers import free_port

if sys.platform != "win32":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["ddpm.cli.main", "ddpm.training.train", "ddpm.evaluation.evaluate", "torch._dynamo"]
    )


def start(n, work, *args, folder):
    """Begin work(*args), which returns an exit code, in n processes that know their rank."""
    first = context.Process(target=int)  # the server loads what it will fork, which takes seconds
    first.start()
    first.join()
    port, processes = str(free_port()), []  # taken at once
    for rank in range(n):
        variables = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n),
            "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        environment = {**os.environ, **variables}
        process = context.Process(target=begin, args=(work, args, folder, rank, environment))
        process.start()
        processes.append(process)
    return processes


def begin(work, args, folder, rank, environment):
    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{name}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.exit(work(*args))


def ended(processes, folder):
    """What the processes printed, all together, and the code of one that failed, once all have
    ended."""
    deadline = time.monotonic() + 300
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
    late = [process for process in processes if process.is_alive()]
    for process in late:
        process.kill()
        process.join()
    said = {
        name: "".join((folder / f"{name}-{rank}").read_text() for rank in range(len(processes)))
        for name in ("stdout", "stderr")
    }
    assert not late, said["stderr"]
    return SimpleNamespace(returncode=max(abs(p.exitcode) for p in processes), **said)


def run(n, work, *args, folder):
    return ended(start(n, work, *args, folder=folder), folder)


# ---- what processes do; a function of a test file cannot be sent to them ---------------------


def trained(toml, out):
    """Train, and say what goes wrong."""
    logging.basicConfig(level="INFO", format="note: %(message)s")
    try:
        train(read_toml(toml), out, device="cpu")
    except UserError as error:
        sys.exit(str(error))


def trained_slowly(toml, out):
    """The same at half a second for each step; the main process notes them in a file."""
    honest = torch.optim.AdamW.step

    def slow(*args, **options):
        time.sleep(0.5)
        done = honest(*args, **options)
        if os.environ["RANK"] == "0":
            with open("steps", "a") as file:
                file.write("x")
        return done

    torch.optim.AdamW.step = slow
    trained(toml, out)
