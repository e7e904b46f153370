"""How dark the stain of a section is: 0 on paper, about 1 where it is darkest; and where its tissue lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: The grey level of paper is the most frequent one from here on; that of tissue is below. Paper of the Allen
#: Institute's images is much lighter (243 in SectionImage 69177654). An image whose paper is darker, as of
#: fluorescence, is not recognised: most of it becomes tissue, and it exceeds the limit of the Dice coefficient.
_PAPER_FROM = 150
#: Standard deviation of the smoothing of the histogram, in grey levels.
_SMOOTHING = 2.0
#: What is darker than paper by more than this, in grey levels, is tissue or stain; its percentile becomes 1, so that a
#: few dark specks do not set the scale.
_STAINED, _TOP = 8.0, 99.0
#: Darkness above which a smoothed pixel is tissue.
_TISSUE = 0.1
#: Standard deviation of the smoothing of the tissue, in um.
_TISSUE_SMOOTHING = 37.5

#: What is smaller than this part of the largest piece of tissue is dirt.
_SMALLEST_PART = 0.03
#: Standard deviation in um of the Gaussian within which tissue is evened, wide against layers and short against an
#: uneven stain; the least deviation of its darkness there.
_EVENED, _LEAST_DEVIATION = 600.0, 0.02
#: Largest evened darkness, and what tissue has more than paper.
_LARGEST, _LIFT = 3.0, 0.5


def darkness(image: NDArray[np.uint8], inside: NDArray[np.bool_], measured: NDArray[np.bool_] | None = None) -> Array:
    """The darkness of a section, relative to its paper.

    Parameters
    ----------
    image : ndarray, uint8, shape (rows, columns, 3)
        Brightfield: paper is lighter than tissue.
    inside : ndarray, bool, shape (rows, columns)
        Whether each pixel lies inside the section image.
    measured : ndarray, bool, shape (rows, columns), optional
        The pixels inside by which the grey levels of paper and of the darkest stain are found; by default all.

    Returns
    -------
    ndarray, float64, shape (rows, columns)
        0 to 1; 0 outside the image, and everywhere if nothing is darker than the paper.
    """
    from scipy import ndimage

    grey = image.mean(axis=-1)
    if measured is None:
        measured = inside
    counts = np.bincount(grey[measured].astype(np.int64), minlength=256).astype(np.float64)
    smooth = ndimage.gaussian_filter1d(counts, _SMOOTHING)
    paper = _PAPER_FROM + int(np.argmax(smooth[_PAPER_FROM:]))
    darker = np.where(inside, np.maximum(paper - grey, 0.0), 0.0)
    stained = measured & (darker > _STAINED)
    if not stained.any():
        return np.zeros(grey.shape)
    return np.asarray(np.minimum(darker / np.percentile(darker[stained], _TOP), 1.0))


def tissue(darkness: Array, resolution: float) -> NDArray[np.bool_]:
    """Where the tissue of a section lies: the connected parts darker than paper, without specks of dirt.

    Parameters
    ----------
    darkness : ndarray, float64, shape (rows, columns)
    resolution : float
        Pixel size in um.

    Returns
    -------
    ndarray, bool, shape (rows, columns)
    """
    from scipy import ndimage

    dark = ndimage.gaussian_filter(darkness, _TISSUE_SMOOTHING / resolution) > _TISSUE
    parts, count = ndimage.label(dark)
    if not count:
        return np.asarray(dark)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= _SMALLEST_PART * sizes.max())[parts] & dark)


def evened(darkness: Array, tissue: NDArray[np.bool_], resolution: float) -> Array:
    """The darkness of a section relative to that of the tissue around: uneven stain and the outline count little.

    Parameters
    ----------
    darkness : ndarray, float64, shape (rows, columns)
    tissue : ndarray, bool, shape (rows, columns)
    resolution : float
        Pixel size in um.

    Returns
    -------
    ndarray, float64, shape (rows, columns)
        In the tissue half of 1 and the deviation from the mean there, in standard deviations; 0 elsewhere.
    """
    from scipy import ndimage

    weight = tissue.astype(np.float64)

    def around(array: Array) -> Array:
        return np.asarray(ndimage.gaussian_filter(array * weight, _EVENED / resolution, mode="constant", truncate=3.0))

    count = np.maximum(around(weight), 1e-3)
    mean = around(darkness) / count
    variance = np.maximum(around(darkness**2) / count - mean**2, 0.0)
    deviation = (darkness - mean) / np.sqrt(variance + _LEAST_DEVIATION**2)
    return np.asarray((np.clip(deviation, -_LARGEST, _LARGEST) + _LIFT) * weight)
