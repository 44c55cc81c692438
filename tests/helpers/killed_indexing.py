"""What retrieval/test_indexing.py kills: python killed_indexing.py PHOTOS DB."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ames.retrieval.indexing import index_photos

if __name__ == "__main__":
    index_photos(sys.argv[1], sys.argv[2], "rootsift_ames_dist")
