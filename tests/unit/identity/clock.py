"""A clock that moves only by `advance`."""


class Clock:
    def __init__(self, reading: float = 1_000_000.0) -> None:
        self.reading = reading

    def __call__(self) -> float:
        return self.reading

    def advance(self, seconds: float) -> None:
        self.reading += seconds
