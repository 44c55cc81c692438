"""Image files that OpenCV does not write: with an orientation, in CMYK, TIFFs of cameras, turned AVIFs."""


def with_orientation(jpeg, orientation):
    """A JPEG with an EXIF block that holds nothing but an orientation (1 ... 8)."""
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation])
    exif = b"Exif\0\0" + tiff + b"\0\0" + b"\0\0\0\0"
    block = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    return jpeg[:2] + block + jpeg[2:]


def cmyk_jpeg(cyan, magenta, yellow, black, blocks=2):
    """A JPEG of ``blocks`` x ``blocks`` times 8 x 8 pixels of one colour, inks 0 ... 255, as programs for
    print write them: with Adobe's mark, and inverted.
    """

    def segment(marker, content):
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    side = (8 * blocks).to_bytes(2, "big")
    frame = b"\x08" + side + side + b"\x04" + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5))
    # Huffman tables: of the first coefficient, its length in bits 0 ... 11, each a code of four bits; of the
    # others "no more", one bit. Quantization by 1: a block of one value v has as first coefficient
    # 8 (v - 128).
    lengths = segment(0xC4, b"\0" + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12)))
    others = segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0")
    scan = b"\x04" + b"".join(bytes([i, 0]) for i in range(1, 5)) + b"\0\x3f\0"
    bits = ""
    values = [8 * (255 - ink - 128) for ink in (cyan, magenta, yellow, black)]
    for block in range(blocks * blocks):
        for value in values:
            difference = value if block == 0 else 0  # to the block before
            size = abs(difference).bit_length()
            bits += f"{size:04b}"
            if size:
                bits += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"
            bits += "0"
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    head = b"\xff\xd8" + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + segment(0xDB, b"\0" + b"\x01" * 64)
    return head + segment(0xC0, frame) + lengths + others + segment(0xDA, scan) + data + b"\xff\xd9"


def tiff(tags):
    """A TIFF's header and its first picture's tags, each with one number; 4 x 4 grey pixels."""
    tags = {256: 4, 257: 4, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: 16} | tags
    entries = b"".join(
        tag.to_bytes(2, "big") + b"\0\x04\0\0\0\1" + value.to_bytes(4, "big")
        for tag, value in sorted(tags.items())
    )
    head = b"MM\0*" + (24).to_bytes(4, "big") + bytes([200] * 16)
    return head + len(tags).to_bytes(2, "big") + entries + b"\0\0\0\0"


def turned_avif(avif, *properties):
    """An AVIF as OpenCV writes it, of one item, with more properties of its picture, in order:
    (b"irot", quarters anticlockwise), (b"imir", 0 for upside down or 1 for left to right), (b"clap", eight
    numbers).
    """
    data = bytearray(avif)

    def change(position, by, length=4):
        old = int.from_bytes(data[position : position + length], "big")
        data[position : position + length] = (old + by).to_bytes(length, "big")

    def append(kind, content):
        start = data.find(kind) - 4
        end = start + int.from_bytes(data[start : start + 4], "big")
        data[end:end] = content
        for box in {kind, b"iprp", b"meta"}:
            change(data.find(box) - 4, len(content))
        item = data.find(b"iloc") + 4
        assert data[item : item + 8] == b"\0\0\0\0\x44\0\0\1"
        change(item + 14, len(content))  # where its data is, which lies behind

    numbers = data[data.find(b"ipma") + 14]  # properties that the only item has: all that there are
    change(data.find(b"ipma") + 14, len(properties), 1)
    append(b"ipma", bytes(0x80 | numbers + 1 + i for i in range(len(properties))))
    contents = [
        (kind, bytes([x]) if isinstance(x, int) else b"".join(n.to_bytes(4, "big", signed=True) for n in x))
        for kind, x in properties
    ]
    append(b"ipco", b"".join((8 + len(x)).to_bytes(4, "big") + kind + x for kind, x in contents))
    return bytes(data)
