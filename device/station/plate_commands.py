"""Commands on the plate that runs, and on which well a live camera shows."""

from collections.abc import Callable

from device.analysis.plate_state import PlateState
from device.cameras import Camera
from device.errors import ConfigError
from device.messages.replies import PlateStatus
from device.plates import parse_plate
from device.records import PlateWell
from device.station.capture import Capture
from device.station.orders import Order, RefusedError
from device.station.store import Records
from device.tables import shorten


class PlateCommands:
    """A method for each command, called by the store loop alone.

    `open_camera` opens a camera that is not live on the wells of a plate; `note_plate` hears that the plate
    or its well is another; `finish` finishes the plate.
    """

    def __init__(
        self,
        records: Records,
        capture: Capture,
        *,
        open_camera: Callable[[tuple[PlateWell, ...]], Camera],
        note_plate: Callable[[], None],
        finish: Callable[[], None],
    ) -> None:
        self._records, self._capture = records, capture
        self._open_camera, self._note_plate, self._finish = open_camera, note_plate, finish

    def ping(self, _order: Order) -> PlateStatus:
        """Return which plate runs."""
        return self._records.status()

    def plate_status(self, _order: Order) -> PlateStatus:
        """Return how far each well is."""
        return self._records.status(wells=True)

    def plate_start(self, order: Order) -> PlateStatus:
        """Start the plate of a plate.csv."""
        if (running := self._records.plate) is not None:
            found = f"plate {running.plate} runs; expected none"
            raise RefusedError("PLATE_RUNS", f"{found}; finish it first, with plate_finish")
        try:
            plate = parse_plate(order.args.csv, name=order.args.plate)
            camera = None if self._capture.live else self._open_camera(plate.wells)
        except ConfigError as error:
            raise RefusedError("PLATE_CSV", str(error), "args.csv") from error
        self._records.start(plate, order.command.operator)
        if camera is not None:
            self._capture.show(camera, self._records.aim.run)
        self._note_plate()
        return self._records.status()

    def plate_well(self, order: Order) -> PlateStatus:
        """Take what a live camera shows for a well from now on."""
        well, plate = order.args.well, self._running_plate()
        if not self._capture.live:
            expected = "expected it to be told where a live camera looks"
            raise RefusedError("NOT_LIVE", f"the camera shows the wells of plate.csv by itself; {expected}")
        if well is not None and well not in (names := [planned.well for planned in plate.wells]):
            found = f"well {shorten(well)} is not on the plate; expected one of {', '.join(names)}"
            raise RefusedError("UNKNOWN_WELL", found, "args.well")
        if well is not None and self._records.is_full(well):
            found = f"well {well} has all its planned fields; expected one that has not"
            raise RefusedError("WELL_DONE", found, "args.well")
        self._records.aim_at(well)
        self._note_plate()
        return self._records.status()

    def plate_finish(self, order: Order) -> PlateStatus:
        """Finish the plate, where no field is missing or by force; return how it was before."""
        plate = self._running_plate()
        if not order.args.force:
            do = "measure them, or finish by force with what is there"
            missing = self._records.unfinished_wells()
            if missing and not self._capture.live:
                found = f"plate {plate.plate} finishes by itself when the camera has shown all its fields"
                raise RefusedError(
                    "NOT_DONE", f"{found}; wait, or finish by force with what is there", "args.force"
                )
            if missing:
                found = f"fields are missing in {', '.join(missing)}; expected as many as planned"
                raise RefusedError("NOT_DONE", f"{found}; {do}", "args.force")
        status = self._records.status()
        self._finish()
        return status

    def _running_plate(self) -> PlateState:
        if (plate := self._records.plate) is None:
            raise RefusedError("NO_PLATE", "no plate runs; expected one; start it with plate_start")
        return plate
