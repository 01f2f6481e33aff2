"""A collector that tells how the interpreter of a service is set."""

import gc

from addrservice.tracing import AbstractTraceCollector, Span


class InterpreterSettings(AbstractTraceCollector):
    """Reports them at the end."""

    def enter(self, span: Span) -> None:
        """Nothing."""

    def exit(self, span: Span) -> None:
        """Nothing."""

    def stop(self) -> str:
        return (f'garbage is looked for after {gc.get_threshold()}, '
                f'frozen: {gc.get_freeze_count() > 10_000}')
