"""A process in the place of the one that decodes; it imports little, for it is started often."""

import os
import signal
import time


def misbehaving(connection, memory, seconds):
    """As the words of a file say: hang, die, or send what is no answer; anything else is decoded."""
    connection.send_bytes(b"ready")
    while True:
        task = connection.recv()
        if task.data == b"hang":
            time.sleep(60)
        elif task.data == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif task.data == b"nonsense":
            connection.send_bytes(b"\xff\x00 no JSON")
        elif task.data == b"long":
            connection.send_bytes(bytes(10**6))
        elif task.data == b"more":
            connection.send_bytes(b'{"status": 200, "height": 2, "width": 2}')
            connection.send_bytes(bytes(1000))
        elif task.data == b"keys":
            connection.send_bytes(b'{"status": 200, "path": "/etc/passwd"}')
        else:
            connection.send_bytes(b'{"status": 200, "height": 1, "width": 2}')
            connection.send_bytes(bytes(range(6)))
