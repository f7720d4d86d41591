"""The launcher's switches: the keys that each names itself, and its word in folder names."""

from typing import NamedTuple

PHASED_KEY, SUPCON_KEY, TRIPLETX_KEY = "LOSS.PHASED.ENABLE", "LOSS.SUPCON.ENABLE", "LOSS.TRIPLETX.ENABLE"


class Switches(NamedTuple):
    """What the command line says; None leaves the YAML alone."""

    mode: str | None = None  # baseline | phased
    supcon: bool | None = None
    tripletx: bool | None = None
    T: float | None = None  # temperature of SupCon
    W: float | None = None  # weight of SupCon

    def words(self) -> tuple[str, ...]:
        """Return the words of the given switches for names, in a fixed order, e.g. ('phased', 'notx', 'T0p07')."""
        words = [
            self.mode,
            None if self.supcon is None else "sup" if self.supcon else "nosup",
            None if self.tripletx is None else "tx" if self.tripletx else "notx",
            *(None if value is None else f"{name}{value:.12g}" for name, value in (("T", self.T), ("W", self.W))),
        ]
        return tuple(word.replace(".", "p") for word in words if word is not None)

    def settings(self) -> dict[str, tuple[str, bool | float]]:
        """Return {key: (switch as typed, value)} of the keys that the given switches name themselves."""
        settings = {
            PHASED_KEY: (f"--{self.mode}", None if self.mode is None else self.mode == "phased"),
            SUPCON_KEY: ("--supcon" if self.supcon else "--no-supcon", self.supcon),
            TRIPLETX_KEY: ("--tripletx" if self.tripletx else "--no-tripletx", self.tripletx),
            "LOSS.SUPCON.T": (f"--T {self.T}", self.T),
            "LOSS.SUPCON.W": (f"--W {self.W}", self.W),
        }
        return {key: setting for key, setting in settings.items() if setting[1] is not None}
