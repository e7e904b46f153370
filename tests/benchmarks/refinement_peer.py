"""Another program's registration of one section: `refinement_peer.py RECIPE SECTION.npz FIELD.npy`.

SECTION.npz has `fixed` and `moving`, float32, 0 to 1, over one grid, `mask`, and the pixel size `um`. FIELD.npy gets
the displacement in um, x first, from each pixel of `fixed` to its point in `moving`. Prints the processor time in
seconds. It needs NumPy and the program alone.
"""

import sys
import time

import numpy as np


def simpleitk_bsplines(fixed, moving, mask):
    """Mutual information: an affine by gradient descent, then B-splines by L-BFGS-B, as in SimpleITK's notebooks."""
    import SimpleITK as sitk  # noqa: N813

    fixed, moving = sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moving)
    affine = sitk.AffineTransform(2)
    affine.SetCenter([size / 2 for size in fixed.GetSize()])
    method = _simpleitk(sitk, "mutual information", mask)
    method.SetOptimizerAsGradientDescent(1.0, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, moving)
    splines = sitk.BSplineTransformInitializer(fixed, [8, 8])
    method = _simpleitk(sitk, "mutual information", mask)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(1e-5, 100)
    method.SetInitialTransform(splines, inPlace=True)
    method.Execute(fixed, moving)
    whole = sitk.CompositeTransform([affine, splines])
    field = sitk.TransformToDisplacementField(
        whole, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing(), fixed.GetDirection()
    )
    return np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)


def _simpleitk(sitk, metric, mask):
    method = sitk.ImageRegistrationMethod()
    if metric == "correlation":
        method.SetMetricAsCorrelation()
    else:
        method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricFixedMask(sitk.GetImageFromArray(mask.astype(np.uint8)))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    return method


def simpleitk_demons(fixed, moving, _mask):
    """Fast symmetric forces, smoothed, after an affine by correlation."""
    import SimpleITK as sitk  # noqa: N813

    still, other = sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moving)
    affine = sitk.AffineTransform(2)
    affine.SetCenter([size / 2 for size in still.GetSize()])
    method = _simpleitk(sitk, "correlation", np.ones(fixed.shape, bool))
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(still, other)
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(100)
    demons.SetStandardDeviations(8.0)
    found = demons.Execute(still, sitk.Resample(other, still, affine))
    whole = sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(sitk.Cast(found, sitk.sitkVectorFloat64))])
    field = sitk.TransformToDisplacementField(
        whole, sitk.sitkVectorFloat64, still.GetSize(), still.GetOrigin(), still.GetSpacing(), still.GetDirection()
    )
    return np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)


def dipy_syn(fixed, moving, _mask):
    """An affine by mutual information, then SyN by local correlation, as in DIPY's examples."""
    from dipy.align.imaffine import AffineRegistration, MutualInformationMetric
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    from dipy.align.metrics import CCMetric
    from dipy.align.transforms import AffineTransform2D

    fixed, moving = fixed.astype(np.float64), moving.astype(np.float64)
    affine = AffineRegistration(
        metric=MutualInformationMetric(32, None),
        level_iters=[1000, 100, 10],
        sigmas=[3, 1, 0],
        factors=[4, 2, 1],
        verbosity=0,
    )
    first = affine.optimize(fixed, moving, AffineTransform2D(), None, np.eye(3), np.eye(3))
    syn = SymmetricDiffeomorphicRegistration(CCMetric(2), [100, 50, 25])
    mapping = syn.optimize(fixed, moving, np.eye(3), np.eye(3), first.affine)
    rows, columns = np.mgrid[: fixed.shape[0], : fixed.shape[1]].astype(np.float64)
    y, x = (np.asarray(mapping.transform(part, interpolation="linear")) for part in (rows, columns))
    return np.stack([x - columns, y - rows])


def elastix(fixed, moving, mask):
    """An affine and B-splines by mutual information, elastix's own parameters, which brainglobe-registration uses."""
    import itk

    still, other = (itk.image_view_from_array(np.ascontiguousarray(part, np.float32)) for part in (fixed, moving))
    parameters = itk.ParameterObject.New()
    for kind in ("affine", "bspline"):
        parameters.AddParameterMap(parameters.GetDefaultParameterMap(kind, 4))
    _, found = itk.elastix_registration_method(
        still,
        other,
        parameter_object=parameters,
        log_to_console=False,
        fixed_mask=itk.image_view_from_array(mask.astype(np.uint8)),
    )
    return np.moveaxis(np.asarray(itk.transformix_deformation_field(other, found)), -1, 0)


RECIPES = {
    "SimpleITK, B-splines, mutual information": simpleitk_bsplines,
    "SimpleITK, demons": simpleitk_demons,
    "DIPY, SyN": dipy_syn,
    "elastix, B-splines": elastix,
}


def main(recipe, section, field):
    given = np.load(section)
    begun = time.process_time()
    found = RECIPES[recipe](given["fixed"], given["moving"], given["mask"])
    print(time.process_time() - begun)
    np.save(field, found * float(given["um"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
