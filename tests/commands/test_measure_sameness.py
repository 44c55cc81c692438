"""The rule by which the threshold of ``ames duplicates`` is chosen, and what counts as right."""

import runpy

import numpy as np

from helpers.commands import ROOT

script = runpy.run_path(str(ROOT / "scripts" / "measure_sameness.py"))


def test_the_lowest_threshold_of_enough_precision():
    same = np.array([0.6, 0.7, 0.8, 0.9, 0.95])
    right = np.array([False, True, False, True, True])
    assert script["lowest"](same, right, 0.95) == 0.801
    assert script["lowest"](same, right, 0.75) == 0.601
    assert script["lowest"](same, np.zeros(5, bool), 0.95) is None


def test_what_is_judged():
    def judged(*names):
        return script["judged"](*names, {"landmark_00001_011.jpg"})

    assert judged("landmark_00001_001.jpg", "landmark_00001_002.jpg") is True
    assert judged("distractor_00007_001.jpg", "distractor_00007_004.jpg") is True
    assert judged("landmark_00001_001.jpg", "landmark_00002_001.jpg") is False
    assert judged("landmark_00002_001.jpg", "landmark_00001_011.jpg") is False
    assert judged("landmark_00001_001.jpg", "landmark_00001_011.jpg") is None
    assert judged("clutter_00003_001.jpg", "clutter_00004_001.jpg") is None
    assert judged("clutter_00003_001.jpg", "distractor_00007_001.jpg") is False
