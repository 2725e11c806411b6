"""A live camera in a process of its own, so that a driver which hangs or crashes takes no station with it.

The child (`serve`) opens the camera and sends what it gives through a pipe. Whatever it started goes with it:
it leads a session of its own, which is killed when nothing comes in time or when it is no longer wanted.
"""

import contextlib
import logging
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from logging.handlers import QueueHandler
from typing import IO, Any, cast

from device.cameras import Camera, LostFrame, Setup, open_camera
from device.errors import CameraError, StationError
from device.records import Frame

log = logging.getLogger("device.cameras")

_HEAD = struct.Struct("<Q")  # bytes of the message that follows
_TURN_S = 0.1
"""Longest wait before the caller's `beat` is called again, and before `close` is seen."""
_OPEN_S = 25.0
"""Limit for starting Python and opening; kinds have shorter ones of their own."""
_CLOSE_S = 1.5
"""Time that a camera gets to let go of its device before its process is killed."""
_FIRST_READS = 9  # a Raspberry Pi camera reads so many frames before its first is good
_SPARE_S = 1.0  # beyond the kind's own limit, whose error says more


class ProcessCamera:
    """A live camera of a `kind` whose process runs as long as `frames` is iterated.

    `beat` is called several times a second while a frame is waited for.
    """

    live = True

    def __init__(self, kind: str, settings: object, setup: Setup, *, beat: Callable[[], None]) -> None:
        self._kind, self._order, self._beat = kind, (kind, settings, setup), beat
        self._closed = threading.Event()
        read_s = float(getattr(settings, "read_timeout_s", 10.0))
        pause_s = max(float(getattr(settings, name, 0.0)) for name in ("interval_s", "period_s"))
        self._limit_s = read_s + pause_s + _SPARE_S
        settle_s = float(getattr(settings, "settle_s", 0.0))
        self._first_limit_s = _OPEN_S + settle_s + _FIRST_READS * read_s + self._limit_s

    def frames(self) -> Iterator[Frame | LostFrame]:
        """Yield what the camera gives until `close`, opened at the first; StationError as the kind raises it.

        CameraError too when its process dies, or nothing comes within the kind's `read_timeout_s` (10 s where
        it has none), its pause between frames, and 1 s.
        """
        child = self._start()
        limit_s, wait_s = self._first_limit_s, 0.0
        try:
            while (found := self._receive(child, limit_s)) is not None:
                match found:
                    case logging.LogRecord():
                        if (named := logging.getLogger(found.name)).isEnabledFor(found.levelno):
                            named.handle(found)
                        continue
                    case StationError():
                        raise found
                    case Frame():
                        found.image.flags.writeable = False
                limit_s, wait_s = self._limit_s, _CLOSE_S
                yield found
        except TimeoutError:
            wait_s = 0.0
            raise CameraError(
                f"camera {self._kind} gave no sign for {limit_s:g} s and its process was killed; expected a "
                "frame; check its cable and power"
            ) from None
        finally:
            status = _end(child, wait_s=wait_s)
        if not self._closed.is_set() and status:
            how = f"exit status {status}" if status > 0 else signal.strsignal(-status)
            raise CameraError(f"the process of camera {self._kind} died ({how}); its driver may be at fault")

    def close(self) -> None:
        """End `frames` within a moment; the camera's process goes with it."""
        self._closed.set()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", __name__]
        try:
            child = subprocess.Popen(  # noqa: S603 - ourselves
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise CameraError(
                f"no process for camera {self._kind} ({error}); expected memory and processes to spare"
            ) from error
        with contextlib.suppress(BrokenPipeError):  # it died at once, which its end of the pipe tells
            os.write(_pipe(child.stdin), pickle.dumps(self._order))
        return child

    def _receive(self, child: "subprocess.Popen[bytes]", limit_s: float) -> Any:  # noqa: ANN401 - see `serve`
        """Return the next message, None at the end; TimeoutError if none is whole within `limit_s`."""

        def turn() -> bool:
            self._beat()
            return not self._closed.is_set()

        pipe, until = _pipe(child.stdout), time.monotonic() + limit_s
        head = read_exactly(pipe, _HEAD.size, until=until, turn=turn)
        body = head and read_exactly(pipe, *_HEAD.unpack(head), until=until, turn=turn)
        return body and pickle.loads(body)  # noqa: S301 - from ourselves


def read_exactly(pipe: int, size: int, *, until: float, turn: Callable[[], bool]) -> bytearray | None:
    """Return `size` bytes of a pipe, None where it ends before, or where `turn`, called often, says so.

    TimeoutError if they are not there when `time.monotonic` passes `until`.
    """
    got, poll = bytearray(), select.poll()
    poll.register(pipe)
    while len(got) < size:
        if not turn():
            return None
        if time.monotonic() >= until:
            raise TimeoutError
        if poll.poll(1000 * _TURN_S):
            if not (chunk := os.read(pipe, size - len(got))):
                return None
            got += chunk
    return got


def _pipe(stream: IO[bytes] | None) -> int:
    return cast("IO[bytes]", stream).fileno()  # both were asked for


def _end(child: "subprocess.Popen[bytes]", *, wait_s: float) -> int:
    """End a child and all that it started; return its exit status, 0 where it had to be killed."""
    is_over, until, poll = False, time.monotonic() + wait_s, select.poll()
    with child:  # closes both pipes and reaps it
        cast("IO[bytes]", child.stdin).close()
        poll.register(_pipe(child.stdout))
        # Its end of the pipe closes when it ends; what it still sends is not wanted.
        while not is_over and (left_s := until - time.monotonic()) > 0 and poll.poll(1000 * left_s):
            is_over = not os.read(_pipe(child.stdout), 1 << 20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # not reaped yet, so that the number is still its own
    return child.returncode if is_over else 0


class _ToStation(QueueHandler):
    """Sends log lines of the camera's process to the station's log."""

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # `enqueue` is all that would use it
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record that was made ready."""
        self._send(record)


def serve() -> None:
    """Run in the child: open the camera that stdin names and send to stdout what it gives, until stdin ends.

    What is sent: frames, lost frames, log records, the StationError that ends it.
    """
    out, mutex = os.fdopen(os.dup(1), "wb"), threading.Lock()
    os.dup2(2, 1)  # libraries print there
    opened: list[Camera] = []

    def send(found: object) -> None:
        message = pickle.dumps(found, pickle.HIGHEST_PROTOCOL)
        with mutex:
            out.write(_HEAD.pack(len(message)) + message)
            out.flush()

    def end_with_station() -> None:
        sys.stdin.buffer.read()
        for camera in opened:
            camera.close()
        os._exit(0)

    status = 1
    kind, settings, setup = pickle.load(sys.stdin.buffer)  # noqa: S301 - from ourselves
    threading.Thread(target=end_with_station, daemon=True).start()
    logging.basicConfig(level=logging.INFO, handlers=[_ToStation(send)])
    try:
        camera = open_camera(kind, settings, setup)
        opened.append(camera)
        for frame in camera.frames():
            send(frame)
        camera.close()
        status = 0
    except StationError as error:
        send(error)
        status = 0
    except BrokenPipeError:
        pass  # the station is gone
    except Exception:
        log.exception("camera %s has a defect", kind)
    finally:
        os._exit(status)  # a thread that hangs in a driver must not keep the process


if __name__ == "__main__":
    serve()
