"""Pixels of an image file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ames.datasets import heif
from ames.datasets.image_headers import JPEG, is_cut_off, is_preview, size_of
from ames.datasets.jpegs import decode_by_opencv, decode_jpeg

MAX_PIXELS = 200_000_000  # of an image, 600 MB once decoded: a small file may claim any size


class UnreadableImage(Exception):  # noqa: N818 - it is a finding about a file, counted and reported
    """An image that cannot be decoded; the message says why."""


def read_image(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """uint8 [H, W, 3], BGR, upright as the file's orientation says; or UnreadableImage.

    Grey images get three equal channels, 16 bits become 8, transparency is dropped, CMYK is converted, and an
    animation gives its first frame. Unreadable are truncated and damaged files, never half an image, cameras'
    raw files, and images of more than ``max_pixels``, which are not decoded if ``image_headers`` knows their
    size. The content of a file determines its format, not its name.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or "cannot be read") from error
    except ValueError as error:  # a zero byte in the name
        raise UnreadableImage(str(error)) from error
    return decode(data, max_pixels=max_pixels)


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """As ``read_image``, from the bytes of the file."""
    if not data:
        raise UnreadableImage("empty file")
    size = size_of(data)
    if size is not None:
        _check_size(size, max_pixels)
    if is_cut_off(data):
        raise UnreadableImage("cut off: the end of the file is missing")
    if is_preview(data):
        raise UnreadableImage("a camera's raw file, or another TIFF that begins with a preview")
    if data[:2] in (b"PF", b"Pf") and data[2:3].isspace():
        raise UnreadableImage("numbers of no known range (PFM), which become black")
    try:
        image = _pixels(data)
    except cv2.error as error:
        raise UnreadableImage("too large to decode") from error
    if image is None:
        raise UnreadableImage("not an image that OpenCV can decode")
    _check_size(image.shape[:2], max_pixels)  # of a format whose header is not known here
    return image


def _pixels(data: bytes) -> np.ndarray | None:
    """Upright: OpenCV applies EXIF and TIFF orientations, pillow-heif HEIC's, ``heif.upright`` AVIF's."""
    kind = heif.kind_of(data)
    if kind == "heic":
        try:
            return heif.decode_heic(data)
        except heif.HeicError as error:
            raise UnreadableImage(str(error)) from error
    if kind == "avif":
        image = decode_by_opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        return None if image is None else heif.upright(image, data)
    if data.startswith(JPEG):
        image, complaint = decode_jpeg(data)
        if complaint is not None:
            raise UnreadableImage(f"damaged: {complaint}")
        return image
    return decode_by_opencv(data)


def _check_size(size: tuple[int, ...], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise UnreadableImage(f"{size[1]} x {size[0]} pixels, more than {max_pixels:,}")
