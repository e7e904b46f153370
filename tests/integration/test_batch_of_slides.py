"""A batch whose images come from slides, and whose records come from a catalogue: the API is asked for nothing."""

from atlaszarr import AllenClient, build, build_many
from atlaszarr.stores.target import Target
from copied_datasets import copies

IDS = (11, 12, 13)
SMALL = {"resolution": 100, "chunk": 32}


def test_a_batch_from_slides_and_a_catalogue_asks_the_api_for_nothing(records, serve, connect, contents, tmp_path):
    emulator = serve(*copies(records, IDS))
    emulator.write_bucket(Target.of(tmp_path / "bucket"), tiers=[6])
    connect(emulator).write_catalogue(tmp_path / "catalogue")
    emulator.reset()
    sources = {"image_source": tmp_path / "bucket", "catalogue": tmp_path / "catalogue"}
    with AllenClient(emulator.url, "none", rate=1e9, **sources) as client:
        report = build_many(IDS, tmp_path / "root", client=client, **SMALL)
        assert report.states == {"built": 3}
        assert report.images == 18
        assert emulator.count() == 0
        build(12, tmp_path / "alone.ome.zarr", client=client, **SMALL)
    assert contents(tmp_path / "root" / "12.ome.zarr") == contents(tmp_path / "alone.ome.zarr")
