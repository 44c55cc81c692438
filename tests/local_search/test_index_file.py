"""Inverted files on disk: mapped, grown later, and refused where a bit is another."""

import numpy as np
import pytest

from ames.errors import AmesError
from ames.local_search.codebook import Codebook
from ames.local_search.inverted_file import InvertedFile
from ames.local_search.kernel import Kernel
from golden import asmk
from helpers.visual_words import axes, some


@pytest.mark.parametrize("form", [{"binary": True}, {"binary": False}, {"binary": False, "half": True}])
def test_saved_and_loaded_and_grown(form, tmp_path):
    form = dict(form)
    half = form.pop("half", False)
    images, queries = asmk.local(some(10, 20, 1)), asmk.local(some(3, 20, 2))
    index = InvertedFile(Codebook(asmk.drawn((16, 20), 3), {"seed": 3}), Kernel(idf=True, **form), half=half)
    index.add(images[:8])
    path = index.save(tmp_path / "x.ivf")
    found = InvertedFile.load(path)
    assert isinstance(found._postings.codes.base, np.memmap)
    assert (found.kernel, found.half, found.codebook.meta) == (index.kernel, half, {"seed": 3})
    for check in (True, False):
        for a, b in zip(
            index.search(queries), InvertedFile.load(path, check=check).search(queries), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    entries, code = len(index._merged().images), {(True, False): 3, (False, False): 80, (False, True): 40}
    assert index.bytes_per_image == (entries * (4 + code[form["binary"], half]) + 4 * 8) / 8
    for one in (index, found):
        one.add(images[8:])
    for a, b in zip(index.search(queries), found.search(queries), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(tmp_path.iterdir()) == [path]


def test_half_vectors_score_nearly_the_same():
    images, queries = asmk.local(some(10, 20, 1)), asmk.local(some(3, 20, 2))
    found = []
    for half in (False, True):
        index = InvertedFile(Codebook(asmk.drawn((16, 20), 3)), Kernel(binary=False), half=half)
        index.add(images)
        found.append(np.stack([*index.scores(queries)]))
    np.testing.assert_allclose(*found, atol=1e-3)
    assert (found[0] != found[1]).any()


def test_flipped_bits_and_cut_files_are_refused(tmp_path):
    index = axes()
    index.add(asmk.local(some(4, 8, 1)))
    path = index.save(tmp_path / "x.ivf")
    whole = path.read_bytes()
    for place in (*range(100), *range(100, len(whole), 7)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(AmesError, match=r"x.ivf: (damaged|no inverted file)"):
            InvertedFile.load(path)
    for size in (0, 7, 39, 47, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        for check in (True, False):
            with pytest.raises(AmesError, match=r"x.ivf: (damaged|no inverted file)"):
                InvertedFile.load(path, check=check)
    path.write_bytes(whole + b"x")
    with pytest.raises(AmesError, match="damaged"):
        InvertedFile.load(path, check=False)
    with pytest.raises(AmesError, match="cannot be read"):
        InvertedFile.load(tmp_path / "none.ivf")
