"""The refinement of a real section, SectionImage 69177654 (Prox1), judged by what the fit does not see: prints figures.

tissue    Dice coefficient of the tissue and the brain, by the recipe of `tests/integration/test_real_section.py`
template  mutual information of the section with the average template at 100 um, over the brain and 400 um around it
band      median and mean distance of the stained band from the granule cell layer of the dentate gyrus, in um
depth     the offset of depth at which the section fits best, by the labels and with the template
"""

import argparse
import json
from pathlib import Path

import nrrd
import numpy as np
import simplejpeg
from scipy import ndimage

from atlaszarr import Displacement, Grid, Terminology
from atlaszarr.geometry.plane import PLANES
from atlaszarr.geometry.spaces import reference_space
from atlaszarr.refinement.depth import OFFSETS, correct_dataset, depth_scores
from atlaszarr.refinement.section import refine_section
from atlaszarr.resampling.coverage import inside_image
from atlaszarr.transforms import compose, image_to_reference, tier_affine

IMAGE, DATASET, NUMBER, THICKNESS = 69177654, 69289763, 70, 25.0
WIDTH, HEIGHT, TIER, RESOLUTION = 11921, 7553, 2, 25.0
BAND, HIPPOCAMPUS = "DG-sg", "HPF"
PLANE, GRID = PLANES["sagittal"], Grid(reference_space(9), RESOLUTION)


class Real:
    def __init__(self, data: Path) -> None:
        records = json.loads((data / f"api/SectionImage_of_{DATASET}.json").read_text())["msg"]
        flat = next(each for each in records if each["id"] == IMAGE)["alignment2d"]
        solid = json.loads((data / f"api/SectionDataSet_{DATASET}.json").read_text())["msg"][0]["alignment3d"]
        two = {n: [[flat[f"{n}_0{k}"] for k in row] for row in ((0, 1, 4), (2, 3, 5))] for n in ("tsv", "tvs")}
        self.tsv, self.tvs = (np.array(two[name]) for name in ("tsv", "tvs"))
        three = {n: np.array([solid[f"{n}_{k:02d}"] for k in range(12)]) for n in ("tvr", "trv")}
        self.tvr, self.trv = (np.column_stack([v[:9].reshape(3, 3), v[9:]]) for v in (three["tvr"], three["trv"]))
        body = (data / f"sections/{IMAGE}_downsample{TIER}.jpg").read_bytes()
        image = simplejpeg.decode_jpeg(body, colorspace="RGB")
        self.size = image.shape[1::-1]
        self.image = ndimage.uniform_filter(image, (6, 6, 1))  # pixels of 25 um
        self.annotation = nrrd.read(str(data / "ccf/annotation_25_ccf2017.nrrd"))[0]
        self.template = nrrd.read(str(data / "ccf/average_template_100.nrrd"))[0].astype(float)
        self.terminology = Terminology.read(data / "ontology/structure_graph_1.json")

    def coordinate(self, offset: float) -> float:
        """Where the middle of the section lies along r at an offset of depth, in um."""
        middle = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
        return float(image_to_reference(middle, NUMBER * THICKNESS + offset, self.tsv, self.tvr)[2])

    def labels(self, offset: float) -> np.ndarray:
        return self.annotation[:, :, int(self.coordinate(offset) / RESOLUTION)].T.astype(np.uint32)

    def grey(self, offset: float) -> np.ndarray:
        rows, columns = PLANE.shape(GRID)
        y, x = np.meshgrid(*((np.arange(n) + 0.5) / 4 - 0.5 for n in (rows, columns)), indexing="ij")
        place = np.full(x.shape, self.coordinate(offset) / 100 - 0.5)
        return ndimage.map_coordinates(self.template, [x, y, place], order=1, mode="nearest")

    def recorded(self, offset: float) -> Displacement:
        to_plane = compose(self.trv[:2], PLANE.to_reference(GRID, self.coordinate(offset)))
        return Displacement.from_affine(PLANE.shape(GRID), compose(tier_affine(TIER), compose(self.tvs, to_plane)))

    def seen(self, displacement: Displacement) -> tuple[np.ndarray, np.ndarray]:
        inside = inside_image(displacement.coordinates(), self.size)
        return displacement.warp(self.image, border="replicate"), inside

    def figures(self, displacement: Displacement, offset: float) -> str:
        image, inside = self.seen(displacement)
        labels = self.labels(offset)
        brain, grey = labels > 0, np.where(inside, image.mean(axis=-1), 255)
        dark = ndimage.gaussian_filter(grey, 5 * 2**4 * 1.049 / RESOLUTION) < 230
        parts, count = ndimage.label(dark)
        tissue = parts == 1 + np.argmax(ndimage.sum_labels(dark, parts, range(1, count + 1)))
        dice = 2 * (tissue & brain).sum() / (tissue.sum() + brain.sum())
        near = ndimage.distance_transform_edt(~brain) * RESOLUTION <= 400
        layer = labels == self.terminology[BAND].value
        # The stain of the layer is the darkest of the section; that of the pyramidal layers is about half as dark.
        away = ndimage.distance_transform_edt(~layer) * RESOLUTION
        paper = np.median(grey[near & (away > 400)])
        stained = (away <= 400) & (paper - grey > 0.6 * (paper - np.percentile(grey[away <= 400], 1)))
        return (
            f"tissue {dice:.3f}  template {mutual_information(grey, self.grey(offset), near & inside):.3f}  "
            f"band {np.median(away[stained]):.0f} um (mean {away[stained].mean():.0f})"
        )


def mutual_information(a: np.ndarray, b: np.ndarray, valid: np.ndarray) -> float:
    counts, _, _ = np.histogram2d(a[valid], b[valid], 32)
    shares = counts / counts.sum()
    product = shares.sum(axis=1, keepdims=True) @ shares.sum(axis=0, keepdims=True)
    return float((shares[shares > 0] * np.log(shares[shares > 0] / product[shares > 0])).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the shared data")
    parser.add_argument("--pictures", type=Path, help="a folder for the section under the borders of the regions")
    given = parser.parse_args()
    real = Real(given.data)
    hippocampus = {each.value for each in real.terminology.descendants(HIPPOCAMPUS)}
    image, inside = real.seen(real.recorded(0.0))
    found = {}
    for name in ("labels", "template"):
        template = (real.grey(offset) for offset in OFFSETS) if name == "template" else None
        scores = depth_scores(
            image, inside, (real.labels(offset) for offset in OFFSETS), RESOLUTION, template
        ).explained
        found[name] = correct_dataset([scores]).correction
        curve = " ".join(f"{offset:.0f}:{score:.3f}" for offset, score in zip(OFFSETS, scores, strict=True))
        print(f"depth by {name}: {found[name]:.0f} um, r {real.coordinate(0):.0f} um  {curve}")
    for offset in (0.0, found["labels"]):
        recorded = real.recorded(offset)
        image, inside = real.seen(recorded)
        print(f"offset {offset:.0f} um\n  recorded: {real.figures(recorded, offset)}", flush=True)
        for name, options in (
            ("refined", {}),
            ("hippocampus held out", {"hold_out": hippocampus}),
            ("by the template", {"template": real.grey(offset)}),
        ):
            section = refine_section(image, inside, real.labels(offset), RESOLUTION, **options)
            displacement = recorded.compose(section.displacement)
            print(
                f"  {name}: {real.figures(displacement, offset)}  unseen {section.before.unseen:.3f} -> "
                f"{section.after.unseen:.3f}  affine {section.affine:.0f} um  deformation "
                f"{section.deformation[0]:.0f}/{section.deformation[1]:.0f} um  jacobian {section.jacobian:.2f}  "
                f"{section.reason}",
                flush=True,
            )
            if given.pictures:
                draw(given.pictures / f"{offset:.0f} {name}.png", real, [recorded, displacement], offset)


def draw(path: Path, real: Real, displacements: list[Displacement], offset: float) -> None:
    from PIL import Image

    labels, pictures = real.labels(offset), []
    borders = (labels != np.roll(labels, 1, axis=0)) | (labels != np.roll(labels, 1, axis=1))
    for displacement in displacements:
        picture = real.seen(displacement)[0].copy()
        picture[borders] = (255, 0, 0)
        pictures.append(picture)
    Image.fromarray(np.vstack(pictures)).resize((1056, 1280)).save(path)


if __name__ == "__main__":
    main()
