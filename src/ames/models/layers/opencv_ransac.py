"""Robust estimation by OpenCV: homography, affine model and fundamental matrix, by several samplers.

OpenCV seeds the sampler of each call with a constant, so that a call gives the same again. Three of its
methods are left out: USAC_PARALLEL, whose result is another one each time (seen with 5.0.0 for fundamental
matrices), USAC_FM_8PTS, which estimates a fundamental matrix whatever is asked for, and LMEDS, which takes no
threshold.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np

from ames.errors import first_line

_log = logging.getLogger(__name__)
_CONFIDENCE = 0.9999  # that a sample without outliers was drawn; sampling ends there, or after all trials

METHODS = {
    "ransac": cv2.RANSAC,
    "usac": cv2.USAC_DEFAULT,
    "accurate": cv2.USAC_ACCURATE,
    "fast": cv2.USAC_FAST,
    "magsac": cv2.USAC_MAGSAC,
    "prosac": cv2.USAC_PROSAC,
}


def _homography(source: Any, target: Any, *, method: int, residual: float, trials: int) -> Any:
    return cv2.findHomography(source, target, method, residual, maxIters=trials, confidence=_CONFIDENCE)


def _affine(source: Any, target: Any, *, method: int, residual: float, trials: int) -> Any:
    limits: dict[str, Any] = {"maxIters": trials, "confidence": _CONFIDENCE}
    return cv2.estimateAffine2D(source, target, method=method, ransacReprojThreshold=residual, **limits)


def _fundamental(source: Any, target: Any, *, method: int, residual: float, trials: int) -> Any:
    return cv2.findFundamentalMat(source, target, method, residual, _CONFIDENCE, trials)


# Name -> matches that determine the model, and what estimates it.
MODELS: dict[str, tuple[int, Callable[..., Any]]] = {
    "affine": (3, _affine),
    "homography": (4, _homography),
    "fundamental": (7, _fundamental),
}
ESTIMATORS = tuple(f"{model}-{method}" for model in MODELS for method in METHODS)


def sample_size(estimator: str) -> int:
    """Return the number of matches that determine the model of one of ``ESTIMATORS``."""
    return MODELS[estimator.split("-")[0]][0]


def opencv_inliers(
    estimator: str, query: np.ndarray, database: np.ndarray, *, residual: float, trials: int
) -> np.ndarray:
    """Return bool [n]: the inliers of a model from database to query; none where OpenCV finds no model, or
    fails, which a line says once of each estimator.

    query, database: [n, 2] matched points (row, col), more than ``sample_size``; for "prosac" best match
    first. residual: pixels, of a fundamental matrix from the epipolar line.
    """
    model, method = estimator.split("-")
    # In OpenCV's order, (x, y), though a count of inliers does not depend on it.
    points = (np.ascontiguousarray(side[:, ::-1], np.float32) for side in (database, query))
    try:
        found, mask = MODELS[model][1](*points, method=METHODS[method], residual=residual, trials=trials)
    except cv2.error as error:  # seen of few matches: a sample whose model is refined to none
        _say_failed(estimator, first_line(error))
        found = mask = None
    if found is None or mask is None:
        return np.zeros(len(query), bool)
    return mask.reshape(-1) != 0


@cache
def _say_failed(estimator: str, why: str) -> None:
    _log.warning("OpenCV's %s failed on some matches, which count as no inliers (%s)", estimator, why)
