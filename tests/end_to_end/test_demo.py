"""The demo: its files, its output and a second run; and the repair of its atlas."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import ngff_zarr
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from atlaszarr import verify
from atlaszarr.demo import demonstrate_atlas, run_demo
from atlaszarr.errors import InputError
from atlaszarr.testing.brain import default_brain
from atlaszarr.testing.phantom import default_phantom


@pytest.mark.slow
def test_the_demo_builds_a_volume_and_an_atlas_and_a_second_run_finds_them_finished(tmp_path, command):
    demo = tmp_path / "new-folder"
    ran = command("demo", demo)
    assert ran.code == 0
    assert "528 x 320 x 456" in ran.out
    image = ngff_zarr.from_ngff_zarr(str(demo / "nrp1.ome.zarr"), validate=True).images[3]
    assert np.asarray(image.data).any()
    with Image.open(demo / "demo.png") as picture:
        assert picture.width == 1600
        assert np.asarray(picture.convert("L")).std() > 20

    lines = ran.out.splitlines()
    assert f"picture of both, open this first: {demo}/demo.png" in lines
    commands = [shlex.split(line) for line in lines[lines.index("then try:") + 1 :]]
    assert [words[:2] for words in commands] == [
        ["atlaszarr", name] for name in ("view", "volumes", "measure", "verify")
    ]
    for words in commands[1:]:
        assert command(*words[1:]).code == 0
    assert (demo / "regions.png").exists()
    assert f"built: {demo}/atlas, an atlas of the same brain" in lines
    (root,) = (line.split() for line in lines if line.startswith("root"))
    brain = sum(default_brain().volumes_mm3().values())
    assert [float(mm3) for mm3 in root[2::2]] == pytest.approx([brain, brain / 2], rel=1e-3)
    (head,) = (k for k, line in enumerate(lines) if line.startswith("volumes of its regions of 10 mm3 and more"))
    printed = [line.split() for line in lines[head + 2 : lines.index("", head) - 2]]
    assert {"Isocortex", "HPF", "CP", "TH"} <= {words[0] for words in printed}
    assert min(float(words[-4]) for words in printed if words[0] not in ("left", "structures")) >= 10
    assert any(line.startswith("left is low r (x voxels before 114)") for line in lines)
    (path,) = (line.partition(": ")[2] for line in lines if line.startswith("all 463 regions: "))
    table = pd.read_csv(path)
    assert (table.voxels > 0).sum() == 463
    annotation = Path(path).with_name("annotation.ome.zarr")
    assert ngff_zarr.from_ngff_zarr(str(annotation), validate=True).images[0].axes_orientations is not None
    assert verify(demo / "atlas").ok

    steps = []
    volume, _, picture = run_demo(demo, progress=lambda *step: steps.append(step))
    assert (volume.state, picture) == ("already finished", str(demo / "demo.png"))
    assert steps == [
        *((done, 3, "volume read") for done in range(4)),
        *((done, 2, "reference volumes") for done in range(3)),
        *((done, 1, "atlas read") for done in range(2)),
        *((done, 1, "picture") for done in range(2)),
    ]

    ran = command("demo", demo, "--json")
    again = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert (again["state"], again["requests"]) == ("already finished", 0)
    assert again["error"] < 1
    assert (again["atlas"]["state"], again["atlas"]["regions"]) == ("already finished", 463)
    assert 0 < again["atlas"]["mean_error"] < 0.01
    assert again["atlas"]["mean_error"] < again["atlas"]["largest_error"] < 0.08
    assert again["atlas"]["compared"] == sum(volume > 1 for volume in default_brain().volumes_mm3().values()) > 100


@pytest.mark.slow
def test_the_atlas_of_the_demo_is_repaired_and_other_files_are_kept(tmp_path, emulator, connect):
    client, phantom = connect(emulator), default_phantom()
    built = demonstrate_atlas(tmp_path, client, phantom, lambda *_: None)
    assert built.state == "built"
    shutil.rmtree(Path(built.annotation) / "1")
    assert demonstrate_atlas(tmp_path, client, phantom, lambda *_: None) == replace(built, state="resumed")
    table = Path(built.volumes).with_name("terminology.csv")
    whole = table.read_bytes()
    table.write_text("altered\n")
    demonstrate_atlas(tmp_path, client, phantom, lambda *_: None)
    assert table.read_bytes() == whole
    other = tmp_path / "other" / table.relative_to(tmp_path)
    other.parent.mkdir(parents=True)
    other.write_text("another file\n")
    with pytest.raises(InputError, match=r"terminology\.csv"):
        demonstrate_atlas(tmp_path / "other", client, phantom, lambda *_: None)
    assert other.read_text() == "another file\n"
