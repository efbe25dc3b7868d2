"""An event loop whose time passes only where everything waits, so that waiting costs nothing and seconds are exact."""

import asyncio
import selectors


class _Selector(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits, and for nothing"
            self.now += timeout
        return found


class VirtualClock(asyncio.SelectorEventLoop):
    """Time stands still while anything can run, and then jumps to whatever is due next."""

    def __init__(self):
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self):
        return self._virtual.now


def timed(coroutine):
    """What a coroutine returns, and the seconds that it waited."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        value = runner.run(coroutine)
        return value, runner.get_loop().time()
