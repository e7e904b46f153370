"""What commands print and write is safe: control characters, secrets, closed and full streams, interruptions."""

import http.server
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from atlaszarr import AllenClient, open_volume, region_mask
from atlaszarr.cli.commands import cli
from atlaszarr.errors import printable
from atlaszarr.testing.emulator import Emulator
from small_annotation import write_annotation
from tiny_atlas import write_sources

SECRET = "s3cr3t0f7h3t35t"
DATASET = "69289763"


@pytest.fixture(scope="module")
def api():
    with Emulator() as running:
        yield running.url


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    return write_annotation(tmp_path_factory.mktemp("annotation"))


@pytest.fixture
def sources(tmp_path):
    """Arguments of `atlas` for a tiny annotation."""
    made = write_sources(tmp_path / "sources")
    (tmp_path / "sources" / "terminology.csv").write_text(made["ontology"].to_csv())
    return [
        *("--annotation", made["annotation"], "--ontology", tmp_path / "sources" / "terminology.csv"),
        *("--name", "tiny", "--version", "1", "-q"),
    ]


def run(arguments, api, redirection="", folder=None, **environment):
    """Run a command in a shell, with a redirection such as ``>&-``."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "atlaszarr", *map(str, arguments)]
    env = {**os.environ, "ATLASZARR_API_URL": api, "ATLASZARR_CACHE": "none", **environment}
    return subprocess.run(command, capture_output=True, env=env, cwd=folder, check=False, timeout=240)


# Nonsense.

NONSENSE = {
    "empty": "",
    "blank": " ",
    "negative": "-1",
    "not a number": "nan",
    "infinite": "inf",
    "beyond float64": "1e400",
    "long": "x" * 100_000,
    "digits of another script": "１２",  # noqa: RUF001
    "hexadecimal": "0x10",
    "underscore": "1_000",
    "escape sequence": "\x1b[31m1\n",
}
#: Arguments with which a command is valid but for the nonsense.
VALID = {
    "search": [],
    "info": [DATASET],
    "image": ["101321610", "x.jpg"],
    "plan": [DATASET],
    "build": [DATASET, "x.ome.zarr"],
    "preview": [DATASET, "x.png"],
    "verify": ["x.ome.zarr"],
    "volumes": ["x.ome.zarr"],
    "measure": ["x.ome.zarr", "--annotation", "a.ome.zarr"],
    "grid": [DATASET, "x.ome.zarr"],
    "atlas": ["x", "--annotation", "x.nrrd", "--ontology", "x.json"],
    "emulator": ["--faults", "missing.json"],
    "demo": ["x"],
    "catalogue": ["x"],
    "batch": ["x", "--gene", "Prox1"],
    "view": ["x.ome.zarr"],
    "refine": [DATASET, "x.fields", "--annotation", "x.nrrd"],
}
#: Options whose value is a name, a path or a URL: most nonsense is a valid one.
FREE = {
    "gene",
    "product",
    "cache",
    "image-source",
    "name",
    "version",
    "scheduler",
    "spool",
    "region",
    "annotation",
    "template",
    "over",
}


WITH_VALUES = [
    pytest.param(name, parameter, id=f"{name} {parameter.opts[0]}")
    for name in cli.list_commands(None)
    for command in [cli.get_command(None, name)]
    for parameter in command.params
    if isinstance(parameter, click.Option) and not parameter.is_flag
]


@pytest.mark.first(60)
@pytest.mark.parametrize(("name", "option"), WITH_VALUES)
def test_nonsense_for_an_option_is_one_line_with_exit_code_2_and_writes_nothing(
    command, api, monkeypatch, tmp_path, name, option
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATLASZARR_API_URL", api)
    monkeypatch.setenv("ATLASZARR_CACHE", "none")
    free = {part.strip("-") for part in option.opts} & FREE
    for kind, text in NONSENSE.items():
        if free and kind not in ("empty", "blank", "long"):
            continue
        ran = command(name, *VALID[name], f"{option.opts[0]}={text}")
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1), (kind, ran)
        assert len(ran.err) < 1000
        assert not list(tmp_path.iterdir()), kind


@pytest.mark.parametrize("name", [name for name in VALID if name not in ("search", "emulator")])
def test_an_empty_or_endless_argument_is_one_line_with_exit_code_2(command, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    for text in ("", " ", "x" * 100_000):
        ran = command(name, text, *VALID[name][1:])
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
        assert len(ran.err) < 1000
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["[" * 4000, '{"a":' * 1000, "[1", "{"])
def test_a_storage_option_that_is_not_json_is_one_line_with_exit_code_2(command, tmp_path, value):
    ran = command("volumes", tmp_path / "x.ome.zarr", f"--storage-option=client_kwargs={value}")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "client_kwargs" in ran.err


# Streams.


def commands(annotation, sources, tmp_path):
    """Arguments of every command that prints a result."""
    return {
        "--help": ["--help"],
        "--version": ["--version"],
        "search": ["search"],
        "info": ["info", DATASET],
        "plan": ["plan", DATASET],
        "image": ["image", "101321610", tmp_path / "x.jpg", "--downsample", "6"],
        "build": ["build", DATASET, tmp_path / "x.ome.zarr", "--resolution", "400"],
        "verify": ["verify", annotation],
        "volumes": ["volumes", annotation],
        "catalogue": ["catalogue", tmp_path / "catalogue"],
        "batch": ["batch", tmp_path / "batch", "--gene", "Prox1", "--resolution", "400"],
        "grid": ["grid", DATASET, tmp_path / "grid.ome.zarr"],
        "csv": ["volumes", annotation, "--format", "csv"],
        "parquet": ["volumes", annotation, "--format", "parquet"],
        "atlas": ["atlas", tmp_path / "atlas", *sources],
        "preview": ["preview", "909", tmp_path / "x.png"],
        "emulator": ["emulator", "--port", "0"],
    }


#: Commands that write each in another way; the others write as one of them.
WRITERS = ("--help", "search", "build", "csv", "parquet", "emulator")


@pytest.mark.parametrize("name", commands("", [], Path()))
@pytest.mark.slow
def test_a_closed_or_full_standard_output_is_exit_code_1_and_at_most_one_line(api, annotation, sources, tmp_path, name):
    arguments = commands(annotation, sources, tmp_path)[name]
    redirections = {">/dev/full": b"No space left on device", ">&-": b"standard output is closed"}
    for redirection, words in redirections.items() if name in WRITERS else [*redirections.items()][:1]:
        ran = run(arguments, api, redirection)
        assert (ran.returncode, len(ran.stderr.splitlines())) == (1, 1), (redirection, ran)
        assert words in ran.stderr
    if name not in WRITERS:
        return
    reader, writer = os.pipe()
    os.close(reader)
    ran = _run_into(arguments, api, writer)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (1, b""), ran


def _run_into(arguments, api, stdout):
    env = {**os.environ, "ATLASZARR_API_URL": api, "ATLASZARR_CACHE": "none"}
    command = [sys.executable, "-m", "atlaszarr", *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=env, check=False, timeout=240)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
@pytest.mark.slow
def test_without_a_standard_error_a_command_works_and_its_exit_code_is_the_same(api, tmp_path, redirection):
    assert run(["search"], api, redirection).stdout.count(b"\n") == 4
    assert run(["search", "--limit", "1"], api, redirection).returncode == 0
    assert run(["info", "x"], api, redirection).returncode == 2
    target = tmp_path / "x.ome.zarr"
    ran = run(["build", DATASET, target, "--resolution", "400", "-v"], api, redirection)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, f"built: {target}".encode())


@pytest.mark.slow
def test_with_all_standard_streams_closed_nothing_is_written_into_a_target(api, tmp_path):
    target = tmp_path / "x.ome.zarr"
    assert run(["build", DATASET, target, "--resolution", "400"], api, "<&- >/dev/null 2>&-").returncode == 0
    assert run(["verify", target, "--deep"], api).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}], ids=str)
def test_names_are_shown_where_the_terminal_has_no_unicode(serve, records, tmp_path, environment):
    (record,), images = records
    record["genes"][0]["acronym"] = "µé日"
    url = serve([record], images).url
    for arguments in (["search"], ["info", record["id"]]):
        ran = run(arguments, url, **environment)
        assert (ran.returncode, ran.stderr) == (0, b""), ran
    out = tmp_path / "µé.jpg"
    saved = run(["image", images[0]["id"], out, "--downsample", "6"], url, **environment)
    assert (saved.returncode, out.exists()) == (0, True), saved


# Names.

HOSTILE = {
    "escape sequences and newlines": "Nrp1\x1b[31m\nred\t\x9b\x85\u2028",
    "bidi overrides": "Nrp1\u202eabc\u2066",
    "half a surrogate": "Nrp1\ud800x",
    "markup": "[bold]Nrp1[/bold] :smile:",
    "a formula": r"Nrp1$\frac$",
    "no glyphs": "日本",
    "delete": "Nrp1\x7f",
}
#: The kinds of the quick run; the others are slow.
QUICK = ("escape sequences and newlines", "a formula")


@pytest.mark.first(2)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if kind in QUICK else pytest.mark.slow, id=kind) for kind, name in HOSTILE.items()],
)
def test_any_name_of_the_service_is_shown_on_one_line_and_drawn(serve, records, command, tmp_path, name):
    (record,), images = records
    record["genes"][0].update(acronym=name, name=name)
    shown = printable(name).replace(r"\ud800", "?")
    api = ("--api-url", serve([record], images).url)
    found = command("search", *api)
    assert (found.code, len(found.out.splitlines())) == (0, 2), found.err
    assert shown in found.out
    assert shown in command("info", record["id"], *api).out
    rows = json.loads(command("search", "--json", *api).out)
    assert rows[0]["gene"] == name.replace("\ud800", "?")
    for suffix in ("png", "svg"):
        drawn = command("preview", record["id"], tmp_path / f"x.{suffix}", *api)
        assert drawn.code == 0, drawn.err
    svg = (tmp_path / "x.svg").read_text()
    assert all(char.isprintable() or char in "\n " for char in svg)


@pytest.mark.parametrize("name", ["a b", "µé", "100%", "x#y?z", "[1]", "~x", "a\nb", "tab\there", "-x", "a;b", "a "])
@pytest.mark.slow
def test_a_path_with_any_characters_is_taken_and_shown_on_one_line(api, command, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / name
    folder.mkdir()
    target = f"./{name}/../{name}/x.ome.zarr/"
    options = ("--resolution", "400", "--api-url", api)
    built = command("build", DATASET, target, *options)
    assert (built.code, len(built.out.splitlines())) == (0, 2), built
    assert built.out.splitlines()[0] == f"built: {printable(str(folder / 'x.ome.zarr'))}"
    checked = command("verify", folder / "x.ome.zarr")
    assert (checked.code, len(checked.out.splitlines())) == (0, 1)
    saved = command("image", "101321610", folder / "x.jpg", "--downsample", "6", "--api-url", api)
    assert (saved.code, len(saved.out.splitlines())) == (0, 1)
    assert (folder / "x.jpg").exists()
    measured = command("volumes", write_annotation(folder), "--region", "RSP")
    assert (measured.code, measured.out) == (0, "Retrosplenial area: 1.50 mm3\n")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode elsewhere")
def test_a_path_that_is_not_utf_8_is_taken_or_refused_in_one_line(api, tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xe9"
    Path(os.fsdecode(folder)).mkdir()
    for arguments in (["image", "101321610", os.fsdecode(folder + b"/x.jpg"), "--downsample", "6"], ["verify", folder]):
        command = [sys.executable, "-m", "atlaszarr", *arguments]
        env = {**os.environ, "ATLASZARR_API_URL": api}
        ran = subprocess.run(command, capture_output=True, env=env, check=False)
        assert ran.returncode in (0, 2)
        assert len((ran.stdout + ran.stderr).splitlines()) == 1, ran
        assert b"\xe9" not in ran.stdout + ran.stderr


# Secrets.


class _Echoing(http.server.BaseHTTPRequestHandler):
    """Refuses every request, and repeats what it was asked."""

    def _refuse(self):
        body = f"{self.path} {self.headers}".encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _refuse  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def refusing():
    """The host of a server that answers 403."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echoing) as server:
        server.status = 403
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "url",
    [
        "http://HOST/a.nrrd?X-Amz-Signature=SECRET&X-Amz-Credential=SECRET",
        "HTTP://HOST/a.nrrd?sig=SECRET",
        "http://HOST/a.nrrd#SECRET",
        "http://HOST/a.nrrd;token=SECRET",
        "simplecache::http://HOST/a.nrrd?sig=SECRET",
        "http://user:SECRET@HOST/a.nrrd",
        "http://user:SECRET/SECRET@HOST/a.nrrd",
        "ftp://user:SECRET@HOST/a.nrrd",
        "abfs://box:SECRET@HOST/a.nrrd",
        "s3://AKIA:SECRET@bucket/a.nrrd",
        "s3:/AKIA:SECRET@bucket/a.nrrd",
        "https:HOST/a.nrrd?sig=SECRET",
        "zip://a.nrrd::http://HOST/a.zip?sig=SECRET",
        " http://HOST/a.nrrd?sig=SECRET",
    ],
)
def test_a_secret_in_a_url_that_fails_is_not_shown(command, refusing, tmp_path, url):
    url = url.replace("HOST", refusing).replace("SECRET", SECRET)
    for arguments in (
        ["atlas", tmp_path / "atlas", "--annotation", url, "--ontology", url],
        ["volumes", url],
        ["verify", url],
        ["preview", DATASET, tmp_path / "x.png", "--annotation", url],
        ["build", DATASET, url],
        ["search", "--api-url", url],
        ["search", "--cache", url],
        ["image", "1", url],
        ["search", url],
    ):
        verbose = ["-v"] if arguments[0] not in ("volumes", "verify") else []
        ran = command(*arguments, *verbose, "--json")
        assert ran.code in (1, 2)
        assert SECRET not in ran.out + ran.err, ran
        assert not list(tmp_path.iterdir())


def test_a_secret_in_storage_options_is_not_shown(command, refusing):
    options = {"key": SECRET, "secret": SECRET, "endpoint_url": f"http://{refusing}", "timeout": "2"}
    given = [part for name, value in options.items() for part in ("--storage-option", f"{name}={value}")]
    for arguments in (["build", DATASET, "s3://bucket/x"], ["verify", "s3://bucket/x"], ["volumes", "s3://bucket/x"]):
        ran = command(*arguments, *given)
        assert ran.code in (1, 2)
        assert SECRET not in ran.out + ran.err, ran
    wrong = command("verify", "s3://bucket/x", "--storage-option", f"endpoint_url=user:{SECRET}@{refusing}")
    assert (wrong.code, SECRET in wrong.err) == (2, False)


def test_a_secret_in_the_url_of_a_source_is_in_no_file_of_an_atlas(sources, web, tmp_path, command):
    url = f"{web}/sources/annotation.nrrd?X-Amz-Signature={SECRET}#{SECRET}"
    sources[1] = url
    ran = command("atlas", tmp_path / "atlas", *sources, "-v", "--json")
    assert ran.code == 0, ran.err
    assert SECRET not in ran.out + ran.err
    written = [path for path in (tmp_path / "atlas").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    again = command("atlas", tmp_path / "atlas", *sources)
    assert "already finished" in again.out


def test_logs_are_printable_and_without_secrets():
    script = f"""
import logging
from atlaszarr.cli.commands import cli
try:
    cli.main(["search", "-v", "--limit", "0"], standalone_mode=False)
except Exception:
    pass
logging.getLogger("store").warning("GET %s failed\\x1b[31m", "https://me:{SECRET}@host/x?sig={SECRET}")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stderr == "store: GET https://host/x failed\\x1b[31m\n"


# Interruptions.


@pytest.fixture
def silent():
    """The host of a server that accepts connections and never answers, and a semaphore that counts them."""
    connected = threading.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def accept():
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return
                connected.release()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", connected
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["search"], signal.SIGINT),
        (["info", DATASET], signal.SIGTERM),
        (["plan", DATASET], signal.SIGINT),
        (["build", DATASET, "x.ome.zarr"], signal.SIGINT),
        (["build", DATASET, "x.ome.zarr"], signal.SIGTERM),
        (["preview", DATASET, "x.png"], signal.SIGTERM),
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_command_that_began_nothing_says_nothing_of_resuming(silent, tmp_path, arguments, kind):
    host, connected = silent
    command = [sys.executable, "-m", "atlaszarr", *arguments, "--api-url", f"http://{host}/api/v2", "--cache", "none"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        for _ in range(2):  # the first connection is a test
            assert connected.acquire(timeout=60)
        child.send_signal(kind)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err.strip()) == (130, b"", b"atlaszarr: interrupted")
    assert not list(tmp_path.iterdir())


# Lazy arrays.


def texts_of(array):
    """Everything that the graph of a dask array shows."""
    graph = dict(array.__dask_graph__())
    return [repr(array), repr(array.dask), *map(repr, graph), *map(repr, graph.values()), *map(str, graph.values())]


def test_a_lazy_array_shows_no_storage_option(web, tmp_path):
    write_annotation(tmp_path)
    options = {"client_kwargs": {"headers": {"Authorization": SECRET}}}
    mask = region_mask(f"{web}/annotation.ome.zarr", None, "RSP", storage_options=options)
    found = texts_of(mask)
    assert any("annotation.ome.zarr" in text for text in found)
    assert not [text for text in found if SECRET in text]
    assert not [text for text in texts_of(pickle.loads(pickle.dumps(mask))) if SECRET in text]


def test_a_lazy_volume_shows_no_option_of_the_cache(emulator, dataset):
    options = {"key": SECRET, "secret": SECRET, "endpoint_url": "http://127.0.0.1:1"}
    with AllenClient(emulator.url, "s3://cache/x", cache_options=options) as client:
        volume = open_volume(dataset, resolution=400, client=client)
        assert not [text for text in texts_of(volume["image"].data) if SECRET in text]
        assert SECRET not in repr(client) + repr(vars(client)) + repr(volume)


# Deleted records.


@pytest.mark.parametrize("version", ["0.5", "0.4"])
@pytest.mark.parametrize("mode", ["volume", "sections"])
def test_a_deleted_root_ledger_or_record_is_a_defect(api, command, tmp_path, version, mode):
    options = ("--resolution", "400", "--mode", mode, "--ome-zarr", version, "--api-url", api)
    assert command("build", DATASET, tmp_path / "built", *options).code == 0
    root, ledger = "zarr.json" if version == "0.5" else ".zattrs", "atlaszarr/ledger.jsonl"
    for gone in ([ledger], [root], ["atlaszarr/build.json"], [root, ledger]):
        target = tmp_path / gone[-1].rpartition("/")[2] / str(len(gone))
        shutil.copytree(tmp_path / "built", target)
        for key in gone:
            (target / key).unlink()
        ran = command("verify", target)
        assert (ran.code, ran.err) == (1, "")
        assert all(f"{key}: is missing" in ran.out for key in gone), ran.out
        assert len(ran.out.splitlines()) == len(gone) + 1
    (tmp_path / "other").mkdir()
    assert command("verify", tmp_path / "other").code == 2
