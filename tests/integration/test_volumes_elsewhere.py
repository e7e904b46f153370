"""`atlaszarr volumes` as a process, and on an annotation in a bucket."""

import io
import logging
import os
import subprocess
import sys

import boto3
import pandas as pd
import pytest

from atlaszarr.engine.label_index import add_index
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from s3_server import S3Server
from small_annotation import CSV, GEOMETRY, labels, write_annotation


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    return write_annotation(tmp_path_factory.mktemp("annotation"))


@pytest.mark.slow
def test_csv_and_parquet_are_the_same_table(annotation):
    def run(form):
        ran = subprocess.run(
            [sys.executable, "-m", "atlaszarr", "volumes", annotation, "--format", form, "--by-hemisphere"],
            capture_output=True,
            check=True,
            env=os.environ,
        )
        assert b"the midline is assumed" in ran.stderr
        assert b"\nleft is low r" in ran.stderr
        return io.BytesIO(ran.stdout)

    table, same = pd.read_csv(run("csv"), index_col="identifier"), pd.read_parquet(run("parquet"))
    pd.testing.assert_frame_equal(table, same, check_dtype=False)
    assert list(table.columns[:6]) == ["acronym", "name", "voxels", "voxels_direct", "volume_mm3", "volume_direct_mm3"]
    assert table.loc[2, "volume_mm3"] == pytest.approx(4.0)
    assert len(table) == 4


@pytest.mark.slow
def test_an_annotation_in_a_bucket_is_measured_with_its_index_and_without(command):
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = S3Server()
    moto.start()
    try:
        endpoint = moto.url
        options = {"key": "the-key", "secret": "the-secret", "endpoint_url": endpoint}
        boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="the-key",
            aws_secret_access_key="the-secret",
            region_name="us-east-1",
        ).create_bucket(Bucket="atlas")
        url = "s3://atlas/annotation.ome.zarr"
        write_multiscales(labels(), url, rule="mode", geometry=GEOMETRY, storage_options=options, chunk=8)
        Target.of("s3://atlas", options).write("terminology.csv", CSV.encode())
        given = [part for key, value in options.items() for part in ("--storage-option", f"{key}={value}")]
        for _ in range(2):
            ran = command("volumes", url, "--region", "RSP", *given)
            assert (ran.code, ran.out, ran.err) == (0, "Retrosplenial area: 1.50 mm3\n", "")
            add_index(Target.of(url, options))
        Target.of(url, options).remove("0/c/0/0/0")
        ran = command("volumes", url, "--region", "RSP", *given)
        assert (ran.code, ran.out) == (2, "")
        assert "0/c/0/0/0" in ran.err
    finally:
        moto.stop()
