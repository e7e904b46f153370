"""The command line: output, exit codes and interruption."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from contextlib import suppress

import ngff_zarr
import pytest
import simplejpeg

from atlaszarr.cli.commands import cli, main
from atlaszarr.testing.emulator import Emulator


@pytest.fixture(scope="module")
def emulator():
    with Emulator() as running:
        yield running


@pytest.fixture
def run(emulator, capsys, monkeypatch):
    monkeypatch.setenv("ATLASZARR_API_URL", emulator.url)
    monkeypatch.setenv("ATLASZARR_CACHE", "none")
    emulator.reset()

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def process(*arguments):
    command = [sys.executable, "-m", "atlaszarr", *map(str, arguments)]
    # A child inherits SIGINT as ignored if the tests run in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


def test_search_lists_datasets_and_their_images(run):
    code, out, _ = run("search", "--gene", "Prox1")
    assert code == 0
    assert out.splitlines()[0].split() == [
        "id", "gene", "plane", "product", "reference_space", "thickness_um", "specimen", "failed",
        "age", "sex", "sections", "gene_name",
    ]  # fmt: skip
    assert out.splitlines()[1].split()[:3] == ["69289763", "Prox1", "sagittal"]
    assert out.splitlines()[1].endswith("P56  Male        18  prospero homeobox 1")
    _, out, _ = run("search", "--id", 69289763, "--images", "--json")
    rows = json.loads(out)
    assert len(rows) == 18
    assert rows[8]["id"] == 69177654
    assert rows[8]["section_number"] == 70
    assert run("search", "--gene", "Nothing1") == (0, "nothing matches\n", "")


def test_search_prints_missing_values_as_blanks_and_ids_as_whole_numbers(run):
    _, out, _ = run("search")
    invented, prox1, _ = out.splitlines()[1:]
    assert invented.split() == ["909", "coronal", "Mouse", "9", "25.0", "False", "8"]
    assert prox1.split()[4:8] == ["10", "25.0", "68870790", "False"]
    specimens = [row["specimen"] for row in json.loads(run("search", "--json")[1])]
    assert specimens == [None, 68870790, 72962948]


def test_search_says_on_stderr_how_many_datasets_its_limit_leaves_out(run):
    for arguments in ([], ["--images"], ["--quiet"]):
        code, out, err = run("search", "--limit", 2, *arguments)
        assert (code, err) == (0, "2 of 3 datasets shown; --limit 3 lists all\n")
        assert "lists all" not in out
    code, out, err = run("search", "--limit", 2, "--json")
    assert (len(json.loads(out)), err) == (2, "2 of 3 datasets shown; --limit 3 lists all\n")
    assert run("search", "--limit", 3)[2] == ""


def test_search_suggests_a_gene_on_stderr_where_nothing_matches(run, emulator):
    assert run("search", "--gene", "Porx1", "--limit", 5) == (0, "nothing matches\n", "")
    emulator.reset()
    assert run("search", "--gene", "prx1") == (0, "nothing matches\n", "did you mean Prox1?\n")
    assert emulator.count() == 2
    assert run("search", "--gene", "prx1", "--json") == (0, "[]\n", "did you mean Prox1?\n")
    assert run("search", "--gene", "prox1", "--plane", "coronal") == (0, "nothing matches\n", "")


def test_a_search_without_match_succeeds_where_its_suggestion_fails(capsys):
    rule = {"match": {"path": "model::Gene,"}, "times": None, "do": "fail"}
    with Emulator(faults=[rule]) as failing:
        code = main(["search", "--gene", "prx1", "--api-url", failing.url, "--cache", "none"])
        assert failing.count() == 2
    assert (code, *capsys.readouterr()) == (0, "nothing matches\n", "")


def test_info_describes_a_dataset_and_lists_its_missing_sections(run):
    code, out, _ = run("info", 69289763)
    assert code == 0
    assert "missing section numbers  94, 110" in out
    assert "plane of section         sagittal" in out
    _, out, _ = run("info", 69289763, "--json")
    assert json.loads(out)["missing section numbers"] == [94, 110]


@pytest.mark.parametrize(
    "arguments", [["search", "--gene", "Prox1"], ["info", 69289763], ["plan", 69289763, "--resolution", 100]], ids=str
)
def test_json_and_format_json_are_the_same(run, arguments):
    plain, text = run(*arguments), run(*arguments, "--format", "text")
    spellings = [["--json"], ["--format", "json"], ["--json", "--format", "json"], ["--format", "json", "--json"]]
    printed = [run(*arguments, *spelling) for spelling in spellings]
    assert plain == text
    assert printed[1:] == printed[:-1]
    assert json.loads(printed[0][1])


@pytest.mark.parametrize("command", [["search"], ["info", 69289763], ["verify", "x"], ["volumes", "x"]], ids=str)
def test_json_with_another_format_is_refused(run, command):
    form = "csv" if command[0] == "volumes" else "text"
    for arguments in (["--json", "--format", form], ["--format", form, "--json"]):
        code, out, err = run(*command, *arguments)
        assert (code, json.loads(out)["error"]["code"], len(err.splitlines())) == (2, "contradictory-options", 1)
        assert f"--format {form}" in err


@pytest.mark.parametrize(
    ("command", "exit_code", "error"),
    [
        (["info", 5], 2, "dataset-not-found"),
        (["info", "five"], 2, "invalid-id"),
        (["info", 5, "--api-url", "http://127.0.0.1:1/api/v2"], 1, "service-unreachable"),
        (["info"], 2, "wrong-use"),
        (["verify", "x", "--nothing"], 2, "wrong-use"),
        (["verify", "nowhere"], 2, "not-atlaszarr"),
        (["volumes", "x" * 9000], 2, "argument-too-long"),
    ],
    ids=str,
)
def test_an_error_is_json_on_stdout_where_json_is_asked_for(run, command, exit_code, error):
    code, out, err = run(*command, "--json")
    (found,) = json.loads(out).values()
    assert (code, found["code"]) == (exit_code, error)
    assert err == f"atlaszarr: {found['message']}\n"
    assert run(*command, "--format", "json") == run(*command, "--format=json") == (exit_code, out, err)
    assert run(*command) == (exit_code, "", err)


def test_plan_shows_the_cost_and_fetches_no_image(run, emulator):
    code, out, _ = run("plan", 69289763, "--resolution", 100)
    assert code == 0
    assert "20: 2 for metadata, 18 images" in out
    _, out, _ = run("build", 69289763, "unused.ome.zarr", "--resolution", 100, "--dry-run", "--json")
    (plan,) = json.loads(out)
    assert plan["requests"] == 20
    assert emulator.count("section_image_download") == 0
    assert not os.path.exists("unused.ome.zarr")  # noqa: PTH110


def test_image_saves_the_jpeg_unchanged(run, tmp_path):
    out = tmp_path / "x.jpg"
    code, printed, _ = run("image", 101321610, out, "--downsample", 2)
    assert (code, printed) == (0, f"{out}: 714 x 664 pixels\n")
    assert simplejpeg.decode_jpeg(out.read_bytes()).shape == (664, 714, 3)
    run("image", 69177654, out, "--downsample", 3, "--roi", "800,1600,50,40", "--view", "expression")
    assert simplejpeg.decode_jpeg(out.read_bytes()).shape == (40, 50, 3)


def test_an_image_is_saved_at_any_local_path_and_replaces_a_link(command, emulator, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "kept.jpg").write_bytes(b"kept")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "kept.jpg")
    options = ("--downsample", 6, "--api-url", emulator.url)
    for out in ("~/a.jpg", "../b.jpg", "../link.jpg", f"file://{tmp_path}/c.jpg"):
        ran = command("image", 101321610, out, *options)
        assert ran.code == 0, ran.err
    bodies = {(tmp_path / name).read_bytes() for name in ("a.jpg", "b.jpg", "link.jpg", "c.jpg")}
    assert len(bodies) == 1
    assert (tmp_path / "kept.jpg").read_bytes() == b"kept"
    for out in ("s3://bucket/x.jpg", "s3:/bucket/x.jpg"):
        refused = command("image", 101321610, out, *options)
        assert refused.code == 2
        assert "s3://bucket/x.jpg" in refused.err


def run_line_of_python(out):
    """Run the Python after `open it with: ` in another process, and return the repr of its result."""
    (line,) = (line for line in out.splitlines() if line.startswith("open it with: "))
    script = line.removeprefix("open it with: ").replace("; ", "; print(repr(", 1) + "))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


@pytest.mark.first(1)
@pytest.mark.parametrize("mode", ["volume", "sections"])
def test_build_in_a_pipe_prints_its_target_and_how_to_open_it(run, tmp_path, mode):
    target = tmp_path / 'with "quotes" and a space.ome.zarr'
    code, out, err = run("build", 69289763, target, "--resolution", 200, "--mode", mode)
    assert (code, out.splitlines()[0], err) == (0, f"built: {target}", "")
    assert run_line_of_python(out).startswith("NgffMultiscales(")
    _, again, _ = run("build", 69289763, target, "--resolution", 200, "--mode", mode)
    assert again == out.replace("built: ", "already finished: ", 1)


def test_a_build_at_a_terminal_counts_images_and_then_blocks(emulator, tmp_path):
    command = [sys.executable, "-m", "atlaszarr", "build", "69289763", str(tmp_path / "x.ome.zarr")]
    command += ["--resolution", "200", "--api-url", emulator.url, "--cache", "none"]
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    with subprocess.Popen(command, stderr=its, stdout=subprocess.PIPE) as child:
        os.close(its)
        shown = b""
        with suppress(OSError):  # on Linux, reading a terminal without a writer is an error
            while part := os.read(ours, 65536):
                shown += part
        assert child.wait() == 0
    os.close(ours)
    text = shown.decode()
    assert "dataset 69289763: metadata" in text
    assert 0 < text.index("dataset 69289763: images 0/18") < text.index("dataset 69289763: blocks 0/")
    assert "?" not in re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", text)


def test_build_in_a_pipe_prints_its_report_as_json_only(run, tmp_path):
    target = tmp_path / "x.ome.zarr"
    run("build", 69289763, target, "--resolution", 200)
    code, out, err = run("build", 69289763, target, "--resolution", 200, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["ok"]
    assert report["views"][0]["state"] == "already finished"


def run_with_stdout(emulator, stdout, *arguments):
    """Exit code and standard error of a command that writes to an open file."""
    environment = {**os.environ, "ATLASZARR_API_URL": emulator.url, "ATLASZARR_CACHE": "none"}
    command = [sys.executable, "-m", "atlaszarr", *map(str, arguments)]
    ran = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    return ran.returncode, ran.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")  # noqa: PTH110
@pytest.mark.first(2)
@pytest.mark.parametrize(
    "arguments", [["--help"], ["search"], ["info", 69289763, "--json"], ["plan", 69289763]], ids=str
)
def test_a_full_standard_output_is_one_line_and_exit_code_1(emulator, arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        code, err = run_with_stdout(emulator, full, *arguments)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "No space left on device" in err


def test_a_closed_pipe_ends_a_command_without_a_message(emulator):
    reader, writer = os.pipe()
    os.close(reader)
    assert run_with_stdout(emulator, writer, "search", "--gene", "Prox1") == (1, "")
    os.close(writer)


def test_a_command_without_a_standard_output_does_not_begin(emulator, tmp_path):
    emulator.reset()
    script = 'exec "$@" >&-'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "atlaszarr", "build", "69289763", str(tmp_path / "x")]
    ran = subprocess.run([*command, "--api-url", emulator.url], stderr=subprocess.PIPE, text=True, check=False)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1)
    assert "standard output" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_names_of_the_service_and_arguments_reach_the_terminal_escaped(serve, records, command):
    hostile = "Nrp1\x1b[31m\nred\x9b\u202e"
    shown = r"Nrp1\x1b[31m\nred\x9b\u202e"
    (record,), images = records
    record["genes"][0]["acronym"] = hostile
    api = ("--api-url", serve([record], images).url)
    found = command("search", "--id", record["id"], *api)
    assert (found.code, len(found.out.splitlines())) == (0, 2)
    assert shown in found.out
    assert shown in command("info", record["id"], *api).out
    refused = command("info", hostile, *api)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "\x1b" not in found.out + refused.err
    assert json.loads(command("search", "--id", record["id"], "--json", *api).out)[0]["gene"] == hostile


@pytest.mark.first(1)
@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (signal.SIGINT, (), "interrupted; the same command resumes a build"),
        (signal.SIGTERM, ("--overwrite",), "interrupted"),  # the same command would begin again
    ],
)
def test_an_interrupted_build_exits_130_at_once_and_is_resumed(tmp_path, kind, more, words):
    target = tmp_path / "x.ome.zarr"
    hang = {"match": {"path": "section_image_download"}, "do": "hang", "seconds": 300, "times": None, "after": 5}
    with Emulator(faults=[hang]) as emulator:
        options = ["--api-url", emulator.url, "--cache", "none", "--resolution", "200"]
        with process("build", 69289763, target, *options, *more) as child:
            while emulator.count("section_image_download") < 5:
                assert child.poll() is None
            child.send_signal(kind)
            _, err = child.communicate()
    assert child.returncode == 130
    assert err.splitlines()[-1] == f"atlaszarr: {words}"
    assert "ome" not in json.loads((target / "zarr.json").read_text())["attributes"]
    with Emulator() as emulator:
        options[1] = emulator.url
        assert main(["build", "69289763", str(target), *options]) == 0
    ngff_zarr.from_ngff_zarr(str(target), validate=True)


def test_a_command_ends_even_if_the_interruption_is_suppressed():
    script = """
import time
from atlaszarr.cli.signals import stopping_on_signals
with stopping_on_signals():
    while True:
        try:
            print("waiting", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"waiting\n"
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, b"waiting\n")
    assert err.startswith(b"atlaszarr: interrupted")


@pytest.mark.slow
def test_the_emulator_writes_its_slides_and_serves_until_interrupted(tmp_path):
    with process("emulator", "--port", 0, "--bucket", tmp_path / "bucket") as child:
        line = child.stdout.readline()
        assert "http://127.0.0.1:" in line
        url = line.split()[-1]
        assert main(["info", "69289763", "--api-url", url]) == 0
        child.send_signal(signal.SIGINT)
        child.communicate()
    assert child.returncode in (0, 130)
    assert len(list((tmp_path / "bucket" / "section_data_set_69289763" / "downsample_4").iterdir())) == 18


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in cli.list_commands(None))],
    ids=" ".join,
)
def test_every_command_has_help_with_a_sentence_on_each_option(command, capsys):
    assert main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: atlaszarr")
    lines = [*out.splitlines(), ""]
    # A sentence stands next to a short option, and in the line after a long one.
    alone = [(k, line) for k, line in enumerate(lines) if line.strip().startswith("-") and len(line.split("  ")) < 3]
    bare = [line for k, line in alone if not lines[k + 1].startswith(" " * 20)]
    assert not [line for line in bare if line.strip().split("  ")[-1].startswith("--")], bare


def test_a_mistyped_command_is_one_line_and_exit_code_2(run):
    for arguments in (["bild"], ["build"], ["build", "1", "x", "--nope"], ["plan", "1", "--chunk", "many"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1, err
