"""Publisher kind `jsonl`: one line a message in a file, for a lab without a broker and for tests."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from device.errors import PublishError
from device.publishers import Connected, Message, Settled, Setup


@dataclass(frozen=True, slots=True)
class Settings:
    """Options of `[publisher]` for kind `jsonl`."""

    path: Path = Path("messages.jsonl")
    """File that each message is appended to, as {"topic", "retain", "payload"}."""


def open_publisher(settings: Settings, setup: Setup) -> "JsonlPublisher":
    """Return a publisher into a file, made with its folder if missing."""
    try:
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        file = settings.path.open("a", encoding="utf-8")
    except OSError as error:
        raise PublishError(f"publisher.path {settings.path} cannot be written ({error})") from error
    return JsonlPublisher(file, setup)


class JsonlPublisher:
    """A file that takes every message."""

    def __init__(self, file: IO[str], setup: Setup) -> None:
        self._file, self._notify = file, setup.notify
        self._n_sent = 0

    def start(self) -> None:
        """Take messages from now on."""
        self._notify(Connected(window=16))

    def send(self, message: Message) -> object | None:
        """Append the message, and settle it when the system has taken it; pictures are passed over."""
        failure = None
        try:
            if not message.content_type.startswith("image/"):
                print(self._line(message), file=self._file, flush=True)
        except OSError as error:
            failure = f"{self._file.name} cannot be written ({error})"
        self._n_sent += 1
        self._notify(Settled(self._n_sent, failure))
        return self._n_sent

    def _line(self, message: Message) -> str:
        text = message.payload.decode()
        payload = json.loads(text) if message.content_type == "application/json" else text
        line = {"topic": message.topic, "retain": message.retain, "payload": payload}
        return json.dumps(line, ensure_ascii=False)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
