"""Do the tests notice? Put faults in, one by one, and say which tests fail.

    python scripts/mutants.py            # all of them; or the numbers of some

Each fault is a change of a few words in a copy of the sources, of the kind that nothing shows until
a disk is full or a visitor means no good. Its tests are run first without it, and must pass. Prints
a table, and ends with 1 where a fault was not noticed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LOST, WRITTEN = "tests/robustness/test_lost.py", "tests/robustness/test_written_files.py"
VISITORS = "tests/demo/test_visitors.py"
RESUME = "tests/training/test_resume.py::test_a_run_that_a_signal_stops_goes_on_bit_for_bit"


class Fault(NamedTuple):
    """What is put in, where, in place of what, and the tests that are to notice it."""

    name: str
    file: str
    old: str
    new: str
    tests: str


FAULTS = (
    Fault("contents are not forced to disk", "utils/files.py",
          "        os.fsync(file.fileno())\n", "        pass\n",
          f"{LOST}::test_all_is_on_disk_before_and_after_it_is_renamed"),
    Fault("the name of a file is not forced to disk", "utils/files.py",
          "        rename(beside, path)\n        sync_folder(path.parent)\n",
          "        rename(beside, path)\n",
          f"{LOST}::test_all_is_on_disk_before_and_after_it_is_renamed"),
    Fault("a file is written in its place", "utils/files.py",
          "    beside = temporary_name(path)\n    try:\n        beside.unlink",
          "    beside = path\n    try:\n        beside.unlink",
          "tests/utils/test_files.py::test_a_file_is_the_old_one_or_the_new_one"),
    Fault("logs are not on disk before the state", "training/state.py",
          "            sync_file(log)\n", "            pass\n",
          f"{LOST}::test_logs_are_on_disk_before_the_state_that_follows_on_them"),
    Fault("the lock is truncated", "checkpoint/run_dir.py",
          'with self.lock.open("ab") as file', 'with self.lock.open("wb") as file',
          f"{LOST}::test_what_is_in_the_lock_stays"),
    Fault("a refused lock is passed over", "checkpoint/run_dir.py",
          "            if error.errno not in NO_LOCKS:\n                raise\n",
          "            pass\n",
          f"{LOST}::test_a_lock_that_may_not_be_taken_is_not_passed_over"),
    Fault("a refusal is not explained", "utils/errors.py",
          "    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):\n",
          "    if error.errno in (errno.EPERM, errno.EROFS):\n",
          f"{LOST}::test_an_unexplained_refusal_is_a_sentence tests/utils/test_errors.py"),
    Fault("another run's folder is written to", "checkpoint/run_dir.py",
          "if self.held and not os.path.samestat", "if False and not os.path.samestat",
          f"{LOST}::test_a_folder_that_another_run_has_taken_is_left_alone"),
    Fault("leftovers are not cleaned", "checkpoint/run_dir.py",
          "                path.unlink(missing_ok=True)\n", "                pass\n",
          f"{LOST}::test_leftovers_are_cleaned_by_whoever_holds_the_lock"),
    Fault("the mode of new files is not the umask's", "utils/files.py",
          "            beside.chmod(mode)", "            beside.chmod(0o600)",
          f"{WRITTEN}::test_files_have_the_permissions_of_any_new_file"),
    Fault("the checksum is not looked at", "checkpoint/tensors.py",
          "if sha256 is not None and sha256 != digest(tensors)", "if sha256 == 0",
          "tests/checkpoint/test_checkpoint.py::test_a_flipped_bit_is_found"),
    Fault("exploded weights are saved", "training/nonfinite.py",
          "        if loss <= MAX_LOSS:\n", "        if True:\n",
          f"{LOST}::test_weights_that_explode_do_not_replace_sound_ones"),
    Fault("lines of steps to come stay in the log", "training/log.py",
          'beside.write_text("".join(line for line in lines if logged_step(line) <= step))',
          'beside.write_text("".join(lines))',
          "tests/training/test_log.py::test_later_lines_and_torn_ones_are_dropped"),
    Fault("every route but the page is open", "demo/middleware.py",
          'return error_response(401, "this page asks',
          'return None and error_response(401, "this page asks',
          f"{VISITORS}::test_every_route_asks_for_the_password"),
    Fault("any host is taken for this one", "demo/middleware.py",
          "        if not is_own_host(", "        if False and not is_own_host(",
          f"{VISITORS}::test_another_name_that_points_here_gets_nothing"),
    Fault("guesses are not slowed", "demo/middleware.py",
          "asyncio.sleep(self.note_guess(", "asyncio.sleep(0 * self.note_guess(",
          f"{VISITORS}::test_guesses_are_slowed"),
    Fault("files of any size are taken", "demo/middleware.py",
          'scope["path"].rstrip("/") not in SENT\n', "False\n",
          f"{VISITORS}::test_no_file_is_taken"),
    Fault("the queue has no end", "demo/queue.py",
          "        if sum(event.session_hash == session for event in waiting) >= MAX_WAITING:\n",
          "        if False:\n", f"{VISITORS}::test_many_requests_of_one_visitor"),
    Fault("the network is for all at once", "demo/turns.py",
          "            self._changed.wait_for(lambda: not self._busy and me is self._next())\n",
          "            pass\n",
          f"{VISITORS}::test_the_network_is_for_one_visitor_at_a_time"),
    Fault("what nobody listens to goes on", "demo/queue.py",
          "        if not self.listeners[session]:\n", "        if False:\n",
          f"{VISITORS}::test_a_walk_that_nobody_listens_to_ends"),
    Fault("what gradio caches stays", "demo/page.py",
          "delete_cache=CACHE", "delete_cache=None",
          f"{VISITORS}::test_what_gradio_caches_is_deleted"),
    Fault("images that wait take any memory", "demo/queue.py",
          'request.scope.get("bytes", 0) > MAX_WAITING_BYTES', "0 > MAX_WAITING_BYTES * 10**6",
          f"{VISITORS}::test_images_that_wait_are_bounded_in_memory"),
    Fault("pages of other sites are answered", "demo/middleware.py",
          "        if origin and not is_own_host(", "        if False and not is_own_host(",
          f"{VISITORS}::test_pages_of_other_sites_can_start_nothing"),
    Fault("time is shared by walks, not by visitors", "demo/turns.py",
          "(seconds[self._walks[walk]], seconds[walk])", "seconds[walk]",
          f"{VISITORS}::test_a_short_walk_does_not_wait_for_long_ones"),
    Fault("SIGTERM is not heard", "training/clock.py",
          "    numbers = [signal.SIGINT, signal.SIGTERM]\n", "    numbers = [signal.SIGINT]\n",
          f"{RESUME} tests/training/test_clock.py"),
    Fault("a stopped run ends as if it were finished", "cli/train.py",
          "{out} --resume\")\n        return 130\n", "{out} --resume\")\n        return 0\n",
          "tests/robustness/test_messages.py::test_ctrl_c_saves_where_the_reader_of_a_pipe_is_gone"),
    Fault("the average is not in the state", "training/state.py",
          'with_prefix("ema.", self.ema.model.state_dict())\n        for',
          'with_prefix("ema.", self.net.state_dict())\n        for', RESUME),
    Fault("how often was averaged is not restored", "training/state.py",
          "        self.ema.updates = header.ema_updates\n", "        pass\n", RESUME),
)  # fmt: skip


def run_tests(folder: Path, tests: str) -> tuple[int, list[str]]:
    """Return pytest's exit code, and the names of the tests that failed."""
    words = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-o", "addopts="]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(
        [sys.executable, *words, "-m", "not long", *tests.split()], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    failed = re.findall(r"^(?:FAILED|ERROR) \S*::(\w+)", done.stdout, re.M)
    return done.returncode, list(dict.fromkeys(failed))


def try_fault(fault: Fault) -> tuple[bool, str]:
    """Return whether the fault was noticed, and by what. Raises ValueError where it cannot be put
    in, or its tests fail without it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "ddpm")
        for part in ("src", "tests", "docs", "benchmarks", "scripts"):
            shutil.copytree(ROOT / part, folder / part)
        for file in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / file, folder)
        (folder.parent / "shared").symlink_to(ROOT.parent / "shared")
        path = folder / "src" / "ddpm" / fault.file
        text = path.read_text(encoding="utf-8")
        if text.count(fault.old) != 1:
            raise ValueError(f"{fault.name}: its place in {fault.file} is not there once")
        code, failed = run_tests(folder, fault.tests)
        if code:
            raise ValueError(f"{fault.name}: its tests fail without it ({code}): {failed}")
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        code, failed = run_tests(folder, fault.tests)
        if code < 0:
            return True, f"pytest itself, which signal {-code} ends"
        return code == 1, ", ".join(f"`{test}`" for test in failed)


def main() -> int:
    chosen = [int(word) for word in sys.argv[1:]] or range(1, len(FAULTS) + 1)
    print("| | fault | noticed by |\n| --- | --- | --- |")
    missed = 0
    for i in chosen:
        noticed, by = try_fault(FAULTS[i - 1])
        missed += not noticed
        print(f"| {i} | {FAULTS[i - 1].name} | {by if noticed else 'NOT NOTICED'} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
