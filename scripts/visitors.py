"""Does the demo serve many visitors at once, and stay as small as it began?

    python scripts/visitors.py --visitors 8 --rounds 25

Opens the page in as many fresh tabs of a real browser, lets all of them generate at once, and
closes them, round after round. Prints of each round how many were told a place in the queue, when
the last of them was told that or saw a frame, when the first and the last had their images, and the
memory of the server's process after it. Ends with 1 where a visitor got no images, or waited too
long for a word. Needs the extra `demo`, playwright and a Chromium.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import tyro
from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

CLICK = """() => {
  const film = document.querySelector('#view-create .film');
  const place = document.querySelector('#view-create .place');
  const start = performance.now(), visit = window.visit = {};
  const note = (what) => { visit[what] ??= (performance.now() - start) / 1000; };
  document.querySelector('#view-create .dice').click();
  const look = setInterval(() => {
    if (!place.hidden) { note('place'); note('told'); }
    if (film.dataset.film === 'waiting') visit.begun = true;
    if (visit.begun && film.dataset.film === 'coming') { note('frame'); note('told'); }
    if (!visit.begun || film.dataset.film !== 'done') return;
    note('told'); note('done');
    clearInterval(look);
  }, 10);
}"""
OPENED = "document.querySelector('#view-create .film')?.dataset.film === 'done'"


@dataclass
class Options:
    checkpoint: str = "mnist"
    visitors: int = 8
    rounds: int = 25
    limit: float = 1.0
    """Seconds within which every visitor is to see a place in the queue, or a frame."""
    patience: float = 600.0
    """Seconds within which every visitor is to have images."""
    chromium: str | None = shutil.which("chromium") or shutil.which("google-chrome")
    """The browser's program; by default Debian's, else Playwright's own."""


def resident(pid: int) -> float:
    """MB in memory."""
    return psutil.Process(pid).memory_info().rss / 2**20


def start(checkpoint: str, folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    process = subprocess.Popen(
        [sys.executable, "-m", "ddpm", "demo", checkpoint, "--port", str(port)],
        stdout=log.open("w"), stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    while "the demo is at" not in log.read_text():
        if process.poll() is not None:
            sys.exit(log.read_text())
        time.sleep(0.2)
    return process, f"http://127.0.0.1:{port}/"


def arrive(browser: Browser, address: str, visitors: int) -> list[Page]:
    pages = [browser.new_page(bypass_csp=True) for _ in range(visitors)]  # waits are evaluated
    for page in pages:
        page.goto(f"{address}#n=16")
    for page in pages:
        page.wait_for_function(OPENED, timeout=300_000)
    return pages


def generate_at_once(pages: list[Page], options: Options) -> list[dict[str, float]]:
    """What each visitor saw, and after how many seconds. Ends with a sentence where that is not
    what a visitor may expect."""
    for page in pages:
        page.evaluate(CLICK)
    visits = []
    for i, page in enumerate(pages, 1):
        try:
            page.wait_for_function("window.visit.done", timeout=1000 * options.patience)
        except TimeoutError:
            sys.exit(f"visitor {i} had no images after {options.patience:g} seconds")
        visits.append(page.evaluate("window.visit"))
        if (told := visits[-1]["told"]) > options.limit:
            sys.exit(f"visitor {i} saw neither a place nor a frame for {told:.2f} seconds")
    return visits


def main(options: Options) -> None:
    with TemporaryDirectory() as name, sync_playwright() as playwright:
        process, address = start(options.checkpoint, Path(name))
        try:
            browser = playwright.chromium.launch(
                executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            print(f"{resident(process.pid):.0f} MB before the first visitor")
            print("| images made by | told a place | last told | first done | last done | MB |")
            print("| --- | --- | --- | --- | --- | --- |")
            for i in range(1, options.rounds + 1):
                pages = arrive(browser, address, options.visitors)
                visits = generate_at_once(pages, options)
                for page in pages:
                    page.close()
                placed = sum("place" in visit for visit in visits)
                told, done = ([visit[key] for visit in visits] for key in ("told", "done"))
                print(
                    f"| {i * options.visitors} | {placed} | {max(told):.2f} s "
                    f"| {min(done):.1f} s | {max(done):.1f} s | {resident(process.pid):.0f} |",
                    flush=True,
                )
            browser.close()
        finally:
            process.terminate()
            process.wait(20)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
