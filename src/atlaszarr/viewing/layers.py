"""Layers of neuroglancer, as its state has them in JSON: images with their contrast, annotations with their colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..stores.documents import json_bytes
from ..terminology.terminology import Terminology
from .images import Channel, ViewedImage

#: The most channels that are drawn together, so that the shader compiles; the others are reached in the layer's panel.
_MOST_CHANNELS = 8
#: Micrometres in a metre: neuroglancer takes SI units.
_METRE = 1e6
#: How strongly regions cover the image under them: all of them, and next to chosen ones.
_ALPHA, _CHOSEN, _OTHERS, _ALONE = 0.25, 0.5, 0.08, 0.8
#: How much a mesh around all others covers.
_SHELL = 0.15


def dimension(size: float, unit: str) -> list[Any]:
    """The scale of a dimension."""
    return [size / _METRE, "m"] if unit else [size, ""]


def image_layers(name: str, images: Sequence[tuple[str, ViewedImage]], is_transparent: bool = False) -> list[Any]:
    """The layers of images of one kind, such as the sections of a collection; one layer unless channels are apart.

    Parameters
    ----------
    name : str
    images : sequence of (str, ViewedImage)
        URLs and images, with the same channels.
    is_transparent : bool
        Whether what is black shows the layers below, as in a view of expression.
    """
    first = images[0][1]
    channels = first.channels()
    if first.has_whole_pixels:
        sources = [_source(url, image, "c^") for url, image in images]
        return [_image_layer(name, sources, _shader(channels, is_transparent))]
    layers = []
    for k, channel in enumerate(channels):
        sources = [_source(url, image, "c'") for url, image in images]
        layer = _image_layer(f"{name} {channel.label}", sources, _shader([channel], is_transparent))
        layer |= {"localDimensions": {"c'": [1, ""]}, "localPosition": [k], "blend": "additive"}
        layers.append(layer | {"visible": channel.is_active})
    return layers


def _image_layer(name: str, sources: Sequence[Any], shader: str) -> dict[str, Any]:
    return {"type": "image", "name": name, "source": sources, "shader": shader, "opacity": 1}


def _source(url: str, image: ViewedImage, channel: str) -> dict[str, Any]:
    """A source; `channel` is ``c^`` for values that a shader reads together, ``c'`` for one at a time."""
    source: dict[str, Any] = {"url": f"zarr://{url}/"}
    if image.channel_axis is not None:
        sizes = dict(zip("zyx", image.geometry.scale, strict=True))
        source["transform"] = {
            "outputDimensions": {
                (channel if k == image.channel_axis else name): (
                    dimension(sizes[name], image.unit) if name in sizes else [1, ""]
                )
                for k, name in enumerate(image.image.names)
            }
        }
    return source


def _shader(channels: Sequence[Channel], is_transparent: bool) -> str:
    """A shader that adds up the channels in their colours, each with sliders for its contrast."""
    shown = [channel for channel in channels if channel.is_active][:_MOST_CHANNELS] or list(channels[:1])
    lines, terms = [], []
    for k, channel in enumerate(shown):
        position = "" if len(channels) == 1 else f", channel={channels.index(channel)}"
        red, green, blue = (part / 255 for part in bytes.fromhex(channel.colour))
        lines.append(f"#uicontrol invlerp c{k}(range=[{channel.start:.9g}, {channel.end:.9g}]{position})")
        terms.append(f"c{k}() * vec3({red:.4f}, {green:.4f}, {blue:.4f})")
    total = f"vec3 rgb = {' + '.join(terms)};"
    drawn = "emitRGBA(vec4(rgb, max(rgb.r, max(rgb.g, rgb.b))));" if is_transparent else "emitRGB(rgb);"
    return "\n".join([*lines, f"void main() {{ {total} {drawn} }}", ""])


def silhouette_layer(source: Any) -> dict[str, Any]:
    """The layer that shows where labels are, in dark grey, under chosen regions of an annotation without an image."""
    drawn = "emitGrayscale(float(toRaw(getDataValue())) == 0.0 ? 0.0 : 0.25);"
    return _image_layer("outline", [source], f"void main() {{ {drawn} }}\n")


def shell_layer(meshes: Any, roots: Iterable[int]) -> dict[str, Any]:
    """The layer of the meshes of the roots, through which the regions in 3-D are seen."""
    return {
        "type": "segmentation",
        "name": "shell",
        "source": [meshes],
        "segments": list(map(str, roots)),
        "segmentDefaultColor": "#ffffff",
        "objectAlpha": _SHELL,
        "pick": False,
    }


def annotation_layer(
    sources: Sequence[Any], colours: Mapping[int, str], chosen: Iterable[int], is_alone: bool
) -> dict[str, Any]:
    """The layer of an annotation.

    Parameters
    ----------
    sources : sequence
        Of the labels, of their names, and of meshes.
    colours : mapping of int to str
        ``#RRGGBB`` by label.
    chosen : iterable of int
        The labels that are selected; none selects all.
    is_alone : bool
        Whether no image lies under it.
    """
    segments = list(map(str, chosen))
    plain = _ALONE if is_alone else _ALPHA
    return {
        "type": "segmentation",
        "name": "regions",
        "source": list(sources),
        "segments": segments,
        "segmentColors": {str(label): colour for label, colour in colours.items()},
        "selectedAlpha": _CHOSEN if segments and not is_alone else plain,
        "notSelectedAlpha": _OTHERS if segments else plain,
        "objectAlpha": 0.7,
        "ignoreNullVisibleSet": True,
    }


def names_of(terminology: Terminology) -> bytes:
    """The metadata of a source of names, which the page shows next to a label under the mouse: acronym and name."""
    labelled = terminology.by_value
    names = [one.acronym if one.acronym == one.name else f"{one.acronym} {one.name}" for one in labelled.values()]
    properties = [{"id": "label", "type": "label", "values": names}]
    inline = {"ids": [str(label) for label in labelled], "properties": properties}
    return json_bytes({"@type": "neuroglancer_segment_properties", "inline": inline})


def colours_of(terminology: Terminology | None, annotation: ViewedImage) -> dict[int, str]:
    """The colour of each label: by the terminology, or else by the metadata ``image-label``."""
    if terminology is not None:
        return {label: structure.colour for label, structure in terminology.by_value.items()}
    given = annotation.image.ome.get("image-label")
    entries = given.get("colors") if isinstance(given, dict) else None
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or type(label := entry.get("label-value")) is not int:
            continue
        rgba = entry.get("rgba")
        if isinstance(rgba, list) and len(rgba) >= 3 and all(type(n) is int and 0 <= n < 256 for n in rgba[:3]):
            found[label] = f"#{bytes(rgba[:3]).hex()}"
    return found
