"""Commands from a page: behind the operator's token, with a name, each with its answer in words."""

import asyncio
from typing import Any

from nicegui import ui

from device.dashboard.frame import Lab
from device.errors import StationError
from device.report.markup import tag

_ORDERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Read a field now", "capture", {"n": 1}),
    ("Finish the plate", "plate_finish", {}),
    ("Make the station blink", "identify", {}),
)
"""Words on the button, command, arguments. Finishing early needs the command line: it wants `force`."""


class Orders:
    """Name and token of an operator on one page, and the answer to the last command."""

    def __init__(self, lab: Lab, site: str, station: str) -> None:
        self._lab, self._key = lab, (site, station)
        self._name = ui.input("Your name").props('outlined dense maxlength=64 autocomplete="username"')
        self._token = ui.input("Operator's token", password=True)
        self._token.props('outlined dense maxlength=200 autocomplete="current-password"')

    def add_answer(self) -> None:
        """Put the place of the answer here."""
        self._answer = ui.html("", tag="p").props('role="status" aria-live="polite"')

    async def give(self, name: str, args: dict[str, Any], reason: str | None = None) -> bool:
        """Send a command if the token is right, show the answer, and return whether it was carried out."""
        peer = ui.context.client.ip
        operator = (self._name.value or "").strip()
        if (why := self._lab.operator.refusal(self._token.value or "", peer)) is not None:
            self._token.set_value("")
            self.say(f"Refused: {why}.", "bad")
            return False
        if not operator:
            self.say("Refused: your name is missing; it is kept with what you do.", "bad")
            return False
        self.say("Sent; waiting for the station ...", "note")
        try:
            sent = self._lab.collector.command(*self._key, name, args, operator=operator, reason=reason)
            reply = await asyncio.wrap_future(sent)
        except (StationError, LookupError, TypeError, ValueError) as error:
            self.say(f"Not done: {error}.", "bad")
            return False
        if reply["ok"]:
            self.say("Done: the station carried it out.", "good")
        else:
            self.say(f"The station refuses: {reply['error']['message']}.", "bad")
        return bool(reply["ok"])

    def say(self, text: str, look: str) -> None:
        """Show `text` as the answer; `look` is good, bad or note."""
        self._answer.set_content(tag("span", text, class_=look))


def add_orders(lab: Lab, site: str, station: str) -> Orders | None:
    """Put name and token here; None, and why, where commands are off."""
    if lab.operator.token is None:
        said = "Read only. Commands need a token: start the dashboard with --operator-token-file."
        ui.html(tag("p", said, class_="note"))
        return None
    return Orders(lab, site, station)


def order_panel(lab: Lab, site: str, station: str) -> None:
    """Put a panel of commands here."""
    with ui.element("section").classes("panel"):
        ui.html("Commands", tag="h2")
        if (orders := add_orders(lab, site, station)) is None:
            return
        with ui.element("div").classes("buttons"):
            for words, name, args in _ORDERS:
                ui.button(words, on_click=lambda name=name, args=args: orders.give(name, args))
        orders.add_answer()
