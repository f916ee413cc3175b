"""A clock that stands until a test turns it."""

START_US = 1_800_000_000_000_000
SECOND_US = 1_000_000


class Watch:
    def __init__(self) -> None:
        self.now = START_US

    def __call__(self) -> int:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += round(seconds * SECOND_US)
