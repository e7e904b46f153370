"""What the examples of the gallery take: servers on loopback, an atlas of the phantom, and arguments."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
_ATLAS = "ccf/annotation-sets/allen-adult-mouse-annotation/2017/annotation.ome.zarr"
_BUCKET = "allen-mouse-brain-atlas"
_KEY = {"key": "the-access-key", "secret": "the-secret-access-key"}

#: The examples in the order of the gallery, with their arguments; ``OPTIONS`` are those of the S3 server. Later ones
#: read what earlier ones have built.
ARGUMENTS = {
    "retrosplenial": [_ATLAS],
    "retrosplenial_plain": [_ATLAS],
    "regions_by_hemisphere": [_ATLAS],
    "expression_by_region": ["74272479", "nrp1.ome.zarr", _ATLAS],
    "own_fields": ["69289763", "deformed.ome.zarr"],
    "napari_volume": ["nrp1.ome.zarr", _ATLAS],
    "lazy_slice": ["69289763", f"s3://{_BUCKET}", "OPTIONS"],
    "many_datasets": ["many", _ATLAS, "74272479", "69289763"],
    "genes_by_regions": ["many"],
    "brainglobe_volume": ["brainglobe-atlasapi", "annotation_100.nrrd", "template_100.nrrd", "74272479"],
    "your_own_step": ["69289763", "stain.ome.zarr"],
    "getting_started": ["sections"],
}


def position(name: str) -> int:
    """The position of an example, a file name, in the gallery."""
    return list(ARGUMENTS).index(Path(name).stem)


class Inputs:
    """The folder in which the examples run, and the servers that they ask; both end with the process."""

    def __init__(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix="atlaszarr-docs-"))
        self.folder = self._scratch / "examples"
        self.s3_options = ""
        self._running = ExitStack()
        atexit.register(self.stop)
        shutil.copytree(EXAMPLES, self.folder, ignore=shutil.ignore_patterns("__pycache__"))

    def start(self) -> None:
        """Start an emulator of the Allen API and an S3 server with slides, and build the atlas of the phantom."""
        import boto3
        from moto.server import ThreadedMotoServer

        from atlaszarr import build_atlas
        from atlaszarr.stores.target import Target
        from atlaszarr.testing import BrainPhantom, Emulator
        from atlaszarr.testing.phantom_volumes import annotation_nrrd, template_nrrd

        emulator = self._running.enter_context(Emulator(phantom=BrainPhantom()))
        os.environ["ATLASZARR_API_URL"] = emulator.url
        os.environ["ATLASZARR_CACHE"] = str(self._scratch / "cache")
        for name, draw in (("annotation_100.nrrd", annotation_nrrd), ("template_100.nrrd", template_nrrd)):
            (self.folder / name).write_bytes(draw(emulator.phantom, 100))
        build_atlas(self.folder / "ccf", annotation=self.folder / "annotation_100.nrrd")

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer("127.0.0.1", port=0)
        server.start()
        self._running.callback(server.stop)
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        names = {"aws_access_key_id": _KEY["key"], "aws_secret_access_key": _KEY["secret"]}
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **names).create_bucket(Bucket=_BUCKET)
        options = {**_KEY, "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
        emulator.write_bucket(Target.of(f"s3://{_BUCKET}", options), [69289763], tiers=[5])
        self.s3_options = json.dumps(options)

    def stop(self) -> None:
        """Stop the servers, and remove the folder."""
        self._running.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


#: Those of this build. They hold servers, so they are no value of the configuration, which Sphinx keeps in files.
INPUTS = Inputs()


def arguments(_: dict[str, Any], script: dict[str, Any]) -> list[str]:
    """The arguments of an example, for `reset_argv` of sphinx-gallery."""
    given = ARGUMENTS[Path(script["src_file"]).stem]
    return [INPUTS.s3_options if argument == "OPTIONS" else argument for argument in given]
