"""How a process that stays looks for garbage."""

import gc


def collect_rarely() -> None:
    """To be called once all is imported that will be: that is never looked through again, and what a batch makes less
    often. Reference counts free nearly all of it; looking for the rest took more than half of a job's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
