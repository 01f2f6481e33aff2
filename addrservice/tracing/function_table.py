"""How often functions are called, and how long they take."""

from collections import Counter, defaultdict

from addrservice.tracing.spans import AbstractTraceCollector, Span


class CumulativeFunctionTimeProfiler(AbstractTraceCollector):
    """Adds up, per function, its calls, their total time and its own time.

    Own time is the total without the traced calls made inside. Calls that run side by side each
    count in full, so where a function gathers several of them its own time is at least 0.
    """

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self._total_ns: Counter[str] = Counter()
        self._own_ns: Counter[str] = Counter()
        self._inner_ns: defaultdict[Span, int] = defaultdict(int)

    def enter(self, span: Span) -> None:
        """Nothing: all is known at the exit."""

    def exit(self, span: Span) -> None:
        duration = span.duration_ns
        self._calls[span.name] += 1
        self._total_ns[span.name] += duration
        self._own_ns[span.name] += max(0, duration - self._inner_ns.pop(span, 0))
        if span.parent is not None and not span.parent.end_ns:
            self._inner_ns[span.parent] += duration

    def stop(self) -> str | None:
        """The table, longest total first; nothing when nothing was called."""
        if not self._calls:
            return None
        rows = [f'{"calls":>10} {"total ms":>12} {"own ms":>12} {"ms/call":>10}  function']
        for name, total in self._total_ns.most_common():
            calls = self._calls[name]
            rows.append(f'{calls:>10} {total / 1e6:>12.3f} {self._own_ns[name] / 1e6:>12.3f}'
                        f' {total / 1e6 / calls:>10.4f}  {name}')
        return '\n'.join(rows)
