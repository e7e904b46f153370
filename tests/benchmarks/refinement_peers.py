"""The usual recipes of SimpleITK, dipy and elastix on the sections of `refinement.py`, next to ours: error and seconds.

All get the same: the labels at the corrected depth, the darkness of the section at 50 um, and as the fixed image its
own means in the regions, as recorded. It needs `pip install dipy itk-elastix`; run it with OMP_NUM_THREADS=1 and
ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1, in a folder of its own, since elastix writes files there.
"""

import argparse
import time
from collections.abc import Callable

import itk
import numpy as np
import SimpleITK as sitk  # noqa: N813
from dipy.align.imaffine import AffineRegistration, MutualInformationMetric, transform_centers_of_mass
from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
from dipy.align.metrics import CCMetric
from dipy.align.transforms import AffineTransform2D, RigidTransform2D, TranslationTransform2D
from refinement import DEPTHS, RESOLUTION, brain_of, draw_dataset, expectations_of, labels_of, refine
from scipy import ndimage

from atlaszarr.geometry.plane import PLANES
from atlaszarr.refinement.arrays import binned, points_of
from atlaszarr.refinement.darkness import darkness
from atlaszarr.refinement.regions import PlaneRegions

JOINED = 2
#: Two of each kind that is displaced.
SECTIONS = (0, 1, 2, 3, 10, 11, 12, 13)


def image_of(array: np.ndarray):
    return sitk.GetImageFromArray(array.astype(np.uint8 if array.dtype == bool else np.float32))


def method_of(near: np.ndarray):
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetMetricFixedMask(image_of(near))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    return method


def by_simpleitk(target: np.ndarray, moving: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Mutual information: an affine, then B-splines on 8 x 8 knots."""
    fixed, image = image_of(target), image_of(moving)
    by_moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    affine = sitk.CenteredTransformInitializer(fixed, image, sitk.AffineTransform(2), by_moments)
    method = method_of(near)
    method.SetOptimizerAsGradientDescent(1.0, 100, 1e-6, 10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, image)
    splines = sitk.BSplineTransformInitializer(fixed, [8, 8], 3)
    method = method_of(near)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=100)
    method.SetInitialTransform(splines, inPlace=True)
    method.Execute(fixed, image)
    whole = sitk.CompositeTransform([affine, splines])
    frame = fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()
    field = sitk.TransformToDisplacementField(whole, sitk.sitkVectorFloat64, *frame)
    return np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)


def by_dipy(target: np.ndarray, moving: np.ndarray, _: np.ndarray) -> np.ndarray:
    """An affine by mutual information, then SyN by local correlation, which takes no mask."""
    grid = np.eye(3)
    steps = AffineRegistration(
        metric=MutualInformationMetric(nbins=32), level_iters=[1000, 100, 50], sigmas=[3.0, 1.0, 0.0], factors=[4, 2, 1]
    )
    affine = transform_centers_of_mass(target, grid, moving, grid).affine
    for transform in (TranslationTransform2D(), RigidTransform2D(), AffineTransform2D()):
        affine = steps.optimize(target, moving, transform, None, grid, grid, starting_affine=affine).affine
    syn = SymmetricDiffeomorphicRegistration(metric=CCMetric(2, sigma_diff=3.0, radius=4), level_iters=[50, 50, 25])
    mapping = syn.optimize(
        target.astype(np.float32),
        moving.astype(np.float32),
        static_grid2world=grid,
        moving_grid2world=grid,
        prealign=affine,
    )
    x, y = points_of(moving.shape).astype(np.float32) + 1000.0  # beyond the image it fills with 0
    return np.stack([mapping.transform(x), mapping.transform(y)]) - 1000.0 - points_of(target.shape)


def by_elastix(target: np.ndarray, moving: np.ndarray, near: np.ndarray) -> np.ndarray:
    """An affine and B-splines by mutual information: elastix's own parameters, which brainglobe-registration takes."""
    fixed, image = (itk.image_view_from_array(np.ascontiguousarray(part, np.float32)) for part in (target, moving))
    parameters = itk.ParameterObject.New()
    for kind in ("affine", "bspline"):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(kind, 4))
    mask = itk.image_view_from_array(near.astype(np.uint8))
    _, found = itk.elastix_registration_method(
        fixed, image, parameter_object=parameters, fixed_mask=mask, log_to_console=False
    )
    return np.moveaxis(np.asarray(itk.transformix_deformation_field(image, found)), -1, 0)


PEERS: dict[str, Callable[..., np.ndarray]] = {"SimpleITK": by_simpleitk, "dipy": by_dipy, "elastix": by_elastix}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotation")
    parser.add_argument("--seed", type=int, default=900)
    given = parser.parse_args()
    with brain_of(given.annotation) as brain:
        for plane in DEPTHS:
            sections = draw_dataset(brain, PLANES[plane], "displaced", given.seed)
            expected = expectations_of(brain, PLANES[plane], sections)
            found: dict[str, list[list[float]]] = {"recorded": [], "atlaszarr": [], **{name: [] for name in PEERS}}
            for index in SECTIONS:
                section = sections[index]
                began = time.process_time()
                fit = refine(brain, PLANES[plane], section, expected.of(index))
                seconds = time.process_time() - began
                labels = labels_of(brain, PLANES[plane], section.depth + fit.depth.correction)
                dark, regions = (
                    darkness(section.image, np.ones(labels.shape, bool)),
                    PlaneRegions.of(labels, RESOLUTION),
                )
                target = binned(ndimage.gaussian_filter(regions.means(dark, regions.near), 1.0), JOINED)
                near = binned(regions.near.astype(float), JOINED) > 0.5
                truth = np.stack([binned(part, JOINED) for part in section.truth])
                there = binned(section.there.astype(float), JOINED) > 0.5

                def add(name: str, field: np.ndarray, began: float, truth=truth, there=there, found=found) -> None:
                    seconds = time.process_time() - began
                    found[name].append([*np.percentile(np.hypot(*(field - truth))[there], [50, 95]), seconds])

                add("recorded", np.zeros(truth.shape), time.process_time())
                field = fit.section.field
                add("atlaszarr", np.stack([binned(part, JOINED) for part in field]), time.process_time() - seconds)
                for name, peer in PEERS.items():
                    began = time.process_time()
                    add(name, peer(target, binned(dark, JOINED), near) * RESOLUTION * JOINED, began)
            for name, rows in found.items():
                median, p95, seconds = np.median(rows, axis=0)
                print(f"| {plane} | {name} | {median:.0f}/{p95:.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
