"""Builds to an OpenStack Swift that is killed, stopped or wrongly asked, and looks at what its users see.

Gives Swift a virtual environment of its own, starts the emulator and a node, and runs the checks one after another.
Prints one line a check; the exit status is 0 only if all hold.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from child import DATASET, OPTIONS
from node import SwiftNode, environment

from atlaszarr.testing import Emulator

HERE = Path(__file__).parent
BUCKET = "atlas"

#: Seconds: of a build without a fault; from a fault until the build has ended; of a refusal; of a stop.
BUILD, GIVE_UP, REFUSAL, STOP = 120, 90, 30, 30
#: Blocks done when a fault comes.
PAUSE_AT = 3

CHECKS: list[Callable[["Bench"], str | None]] = []


class FailureError(Exception):
    """A check does not hold."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make Swift's environment here, or use what is")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="parts of the names of checks (default: all)")
    arguments = parser.parse_args()
    chosen = [c for c in CHECKS if any(part in c.__name__ for part in arguments.checks or [""])]
    if not chosen:
        parser.error(f"no such check among: {', '.join(check.__name__ for check in CHECKS)}")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="swift-") as scratch:
        start = time.perf_counter()
        python = environment((arguments.keep or Path(scratch)) / "environment")
        print(f"environment ready after {time.perf_counter() - start:.0f} s", flush=True)
        with Emulator() as emulator, SwiftNode(Path(scratch, "node"), python, [BUCKET]) as node:
            bench = Bench(emulator.url, node, Path(scratch, "local.ome.zarr"))
            print(f"node and local build ready after {time.perf_counter() - start:.0f} s", flush=True)
            failed = [check.__name__ for check in chosen if not _holds(check, bench)]
        print(f"{len(failed)} of {len(chosen)} failed ({time.perf_counter() - start:.0f} s)")
    return 1 if failed else 0


def check(function: Callable[["Bench"], str | None]) -> Callable[["Bench"], str | None]:
    """Have `main` run it: its name is its line, what it gives a remark to that."""
    CHECKS.append(function)
    return function


def _holds(check: Callable[["Bench"], str | None], bench: "Bench") -> bool:
    start = time.perf_counter()
    try:
        word, remark = "ok", check(bench)
    except Exception as error:
        word, remark = "FAILED", str(error) if isinstance(error, FailureError) else f"{type(error).__name__}: {error}"
        bench.node.restart()
    name = check.__name__.replace("_", " ")
    print(f"{word:<7} {time.perf_counter() - start:5.1f} s  {name}" + (f": {remark}" if remark else ""), flush=True)
    return word == "ok"


@dataclass(frozen=True)
class Ended:
    """How a process ended: `seconds` after it was started or last told to go on."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def view(self) -> dict[str, object]:
        """The only view of the report of a build."""
        (view,) = json.loads(self.out.splitlines()[-1])["views"]
        return view


class Bench:
    """What the checks share: the emulator, the node, and a local build to compare with."""

    def __init__(self, api_url: str, node: SwiftNode, local: Path) -> None:
        self.api_url, self.node = api_url, node
        with self.build(str(local), {}) as process:
            done(ended(process, BUILD))
        self.wanted = _of_the_image(
            {str(path.relative_to(local)): path.read_bytes() for path in local.rglob("*") if path.is_file()}
        )

    def build(self, target: str, storage_options: dict[str, object], **job: object):
        """A build in a process of its own."""
        return child("build", api_url=self.api_url, target=target, storage_options=storage_options, **job)

    @contextmanager
    def paused(self, target: str):
        """A build that waits in its middle for a line on its stdin."""
        with self.build(target, self.node.storage_options, pause_at=PAUSE_AT) as process:
            waited = threading.Timer(BUILD, process.kill)
            waited.start()
            line = process.stdout.readline()
            waited.cancel()
            if line != "paused\n":
                raise FailureError(f"the build never came to its block {PAUSE_AT}: {process.communicate()[1][-500:]}")
            yield process

    def finish(self, target: str) -> Ended:
        """Run a build to its end, and compare."""
        with self.build(target, self.node.storage_options) as process:
            end = ended(process, BUILD)
        if end.code != 0:
            raise FailureError(f"the build without a fault: {_failing(end)}")
        self.compare(target)
        return end

    def compare(self, target: str) -> None:
        """Fail unless the target holds the image that the local build made, byte for byte."""
        found = _of_the_image(self.node.objects(BUCKET, target.removeprefix(f"s3://{BUCKET}/") + "/"))
        if found != self.wanted:
            names = sorted(key for key in found.keys() | self.wanted if found.get(key) != self.wanted.get(key))
            raise FailureError(f"{len(names)} objects differ from the local build's, the first {names[0]!r}")

    def command(self, target: str, storage_options: dict[str, object]) -> Ended:
        """Give the command ``build``, which is to end within `REFUSAL`."""
        texts = {key: text if isinstance(text, str) else json.dumps(text) for key, text in storage_options.items()}
        words = ["build", str(DATASET), target, "--quiet", "--api-url", self.api_url, "--cache", "none"]
        words += [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value))]
        words += [word for key, text in texts.items() for word in ("--storage-option", f"{key}={text}")]
        with running([sys.executable, "-m", "atlaszarr", *words]) as process:
            return ended(process, REFUSAL)


@check
def a_build_is_what_a_local_build_is(bench):
    end = bench.finish(f"s3://{BUCKET}/plain.ome.zarr")
    return f"{len(bench.wanted)} objects, {end.view['tasks_done']} tasks in {end.seconds:.1f} s"


@check
def a_build_whose_node_is_killed_says_so_and_resumes(bench):
    target = f"s3://{BUCKET}/killed.ome.zarr"
    with bench.paused(target) as process:
        bench.node.kill()
        end = ended(process, GIVE_UP, "\n")
    remark = given_up(end, target, bench.node.storage_options)
    bench.node.restart()
    again = bench.finish(target)
    if again.view["state"] != "resumed":
        raise FailureError(f"{remark}, but the next run says {again.view['state']!r}, not 'resumed'")
    return f"{remark}; then {again.view['state']} with {again.view['tasks_done']} tasks"


@check
def a_build_whose_node_stops_for_a_while_ends_or_says_so_and_resumes(bench):
    target = f"s3://{BUCKET}/stopped.ome.zarr"
    with bench.paused(target) as process:
        bench.node.stop()
        wake = threading.Timer(STOP, bench.node.cont)
        wake.start()
        try:
            end = ended(process, GIVE_UP, "\n")
        finally:
            wake.cancel()
            wake.join()
            bench.node.cont()
    if end.code == 0:
        bench.compare(target)
        return f"went on, and ended after {end.seconds:.1f} s"
    remark = given_up(end, target, bench.node.storage_options)
    again = bench.finish(target)
    return f"{remark}; then {again.view['state']} with {again.view['tasks_done']} tasks"


@check
def a_build_whose_node_never_comes_back_says_so(bench):
    target = f"s3://{BUCKET}/frozen.ome.zarr"
    with bench.paused(target) as process:
        bench.node.stop()
        try:
            end = ended(process, GIVE_UP, "\n")
        finally:
            bench.node.cont()
    return given_up(end, target, bench.node.storage_options)


@check
def a_wrong_secret_is_refused(bench):
    target, options = f"s3://{BUCKET}/secret.ome.zarr", {**bench.node.storage_options, "secret": "not-the-secret"}
    return refused(bench.command(target, options), target, options)


@check
def an_unknown_key_is_refused(bench):
    target, options = f"s3://{BUCKET}/key.ome.zarr", {**bench.node.storage_options, "key": "nobody:there"}
    return refused(bench.command(target, options), target, options)


@check
def a_missing_bucket_is_refused(bench):
    target, options = "s3://nowhere/x.ome.zarr", bench.node.storage_options
    return refused(bench.command(target, options), target, options)


@check
def no_node_at_the_endpoint_is_refused(bench):
    target, options = f"s3://{BUCKET}/gone.ome.zarr", bench.node.storage_options
    bench.node.kill()
    end = bench.command(target, options)
    bench.node.restart()
    return refused(end, target, options)


@check
def exclusive_creation_with_s3fs(bench):
    return _second_creation(bench, "create_with_s3fs")


@check
def exclusive_creation_with_obstore(bench):
    try:
        import obstore  # noqa: F401
    except ImportError:
        return "not tried, obstore is not installed"
    return _second_creation(bench, "create_with_obstore")


@check
def the_time_of_an_object_is_the_servers(bench):
    job = {"storage_options": bench.node.storage_options, "key": f"{BUCKET}/time", "count": 8}
    with child("put_with_a_slow_clock", **job) as process:
        times = json.loads(done(ended(process, REFUSAL)).out)
    if not all(before - 1 < moment < after + 1 for before, *moments, after in times for moment in moments):
        raise FailureError(f"not within a second of the node's clock: {times}")
    told = []
    for place, (name, moments) in enumerate({"HEAD": [t[1] for t in times], "listing": [t[2] for t in times]}.items()):
        whole = all(moment == int(moment) for moment in moments)
        early, late = (pick(t[1 + place] - t[edge] for t in times) for pick, edge in ((min, 0), (max, 3)))
        grain = "whole seconds" if whole else "parts of seconds"
        told.append(f"{name} {grain}, {early:+.2f} s from before the put to {late:+.2f} s from after")
    return "; ".join(told)


def _second_creation(bench: Bench, verb: str) -> str:
    """What a second creation of one key comes to: told, and failed only if the first content is lost."""
    with child(verb, storage_options=bench.node.storage_options, key=f"{BUCKET}/{verb}") as process:
        found = json.loads(done(ended(process, REFUSAL)).out)
    remark = f"the second gives {found['second']}; the key holds what the {found['holds']} put"
    if found["holds"] != "first":
        raise FailureError(remark)
    return remark


def _of_the_image(objects: dict[str, bytes]) -> dict[str, bytes]:
    return {key: body for key, body in objects.items() if not key.startswith("atlaszarr/")}


@contextmanager
def running(words: list[object]):
    """A process, ended with the block come what may."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, text=True, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def child(verb: str, **job: object):
    """A verb of `child.py`, with its job."""
    with running([sys.executable, HERE / "child.py", verb]) as process:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        yield process


def ended(process: subprocess.Popen[str], limit: float, told: str | None = None) -> Ended:
    """Wait for a process, which is given a last line, and must end within `limit` seconds."""
    start = time.perf_counter()
    try:
        out, err = process.communicate(told, timeout=limit)
    except subprocess.TimeoutExpired:
        raise FailureError(f"still waiting after {limit} s") from None
    return Ended(process.returncode, out, err, time.perf_counter() - start)


def done(end: Ended) -> Ended:
    """The same, if it ended well."""
    if end.code != 0:
        raise FailureError(_failing(end))
    return end


def _failing(end: Ended) -> str:
    return f"exit status {end.code} after {end.seconds:.1f} s: {end.err.strip()[-500:]}"


def refused(end: Ended, target: str, storage_options: dict[str, object]) -> str:
    """A remark on a command that ended as it should where its target cannot be used; fails on any other end."""
    said = f"exit status {end.code} after {end.seconds:.1f} s, {end.err.strip()[-500:]!r}"
    if end.code not in (1, 2) or not end.err.startswith("atlaszarr: ") or len(end.err.splitlines()) != 1:
        raise FailureError(f"not refused in one line: {said}")
    _check_words(end, target, storage_options)
    return said


def given_up(end: Ended, target: str, storage_options: dict[str, object]) -> str:
    """The same of a build of `child.py`; what libraries wrote before the error is told, and no failure."""
    *noise, last = end.err.splitlines() or [""]
    said = f"exit status {end.code} after {end.seconds:.1f} s, {last!r}"
    if end.code != 1 or not last.startswith("TargetError: "):
        raise FailureError(f"no TargetError: {said}")
    _check_words(end, target, storage_options)
    return said + (f" below {len(noise)} lines of others" if noise else "")


def _check_words(end: Ended, target: str, storage_options: dict[str, object]) -> None:
    if target not in end.err.splitlines()[-1]:
        raise FailureError(f"the target is not named: {end.err.strip()[-500:]!r}")
    if any(str(storage_options[name]) in end.err + end.out for name in ("key", "secret")):
        raise FailureError("a credential is shown")


if __name__ == "__main__":
    sys.exit(main())
