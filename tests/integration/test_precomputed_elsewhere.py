"""The precomputed folder on S3, read there by tensorstore, and by a cluster."""

import numpy as np
import pytest
import s3fs
import tensorstore

from atlaszarr.annotation_set.precomputed_folder import defects, write_precomputed
from atlaszarr.boxes import everywhere
from atlaszarr.engine.finished_image import Finished
from atlaszarr.engine.ome import Geometry
from atlaszarr.stores.target import Target
from atlaszarr.writing import write_multiscales
from s3_server import S3Server
from tiny_atlas import ONTOLOGY, labels


@pytest.fixture
def annotation(tmp_path):
    image = tmp_path / "annotation.ome.zarr"
    values = labels((90, 80, 70))
    write_multiscales(values, image, rule="mode", levels=2, chunk=32, geometry=Geometry((0.025,) * 3))
    return Finished.at(Target.of(image))


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(annotation, cluster, tmp_path, contents):
    write_precomputed(annotation, Target.of(tmp_path / "threads"), ONTOLOGY)
    write_precomputed(annotation, Target.of(tmp_path / "cluster"), ONTOLOGY, scheduler=cluster.scheduler_address)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "threads")


@pytest.mark.slow
def test_tensorstore_reads_the_labels_of_every_level_from_a_bucket(annotation, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    moto = S3Server()
    moto.start()
    try:
        options = {"key": "test", "secret": "test-secret", "endpoint_url": moto.url}
        store = s3fs.S3FileSystem(**options)
        store.mkdir("precomputed")
        target = Target.of("s3://precomputed/a/annotations.precomputed", options)
        write_precomputed(annotation, target, ONTOLOGY)
        bucket = {
            "driver": "s3",
            "bucket": "precomputed",
            "path": "a/annotations.precomputed/",
            "endpoint": options["endpoint_url"],
            "aws_region": "us-east-1",
            "aws_credentials": {"type": "environment"},
        }
        for level, at in enumerate(annotation.multiscale.pyramid.levels):
            spec = {"driver": "neuroglancer_precomputed", "kvstore": bucket, "scale_index": level}
            found = tensorstore.open(spec).result()[..., 0].read().result().T
            np.testing.assert_array_equal(found, annotation.read(level, everywhere(at.shape)))
        damaged = [
            path for path in store.find("precomputed/a/annotations.precomputed") if "_" in path.rsplit("/", 1)[-1]
        ]
        store.pipe(damaged[0], store.cat(damaged[0])[:-1])
        store.rm(damaged[-1])
        assert [defect.kind for defect in defects(target)] == ["truncated", "missing"]
        assert write_precomputed(annotation, target, ONTOLOGY).state == "resumed"
        assert defects(target) == []
    finally:
        moto.stop()
