"""What database/test_writer.py kills: python killed_database.py build|append|compact FOLDER."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ames.database import build
from ames.database.build import Source, append, compress
from ames.database.writer import writing
from ames.descriptors.local import DescriptorFile, GlobalFile
from helpers.databases import model

build.SEGMENT_ROWS, build._BATCH_SLOTS = 200, 64
what, folder = sys.argv[1], Path(sys.argv[2])
if what == "compact":
    with writing(folder / "db") as writer:
        writer.compact()
else:
    prefix = "image" if what == "build" else "new"
    source = Source(
        DescriptorFile(folder / f"{prefix}_local.hdf5"), GlobalFile(folder / f"{prefix}_global.hdf5")
    )
    if what == "build":
        compress(source, model(), folder / "db", desc_num=4)
    else:
        append(source, model(), folder / "db")
