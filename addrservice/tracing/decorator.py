"""The decorator that marks functions as worth watching."""

import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, TypeVar, cast

from addrservice.tracing import spans
from addrservice.tracing.spans import Kind, Span, Traced, Tracer, current_span, is_followed

_Function = TypeVar('_Function', bound=Callable[..., Any])


def trace(name: str | None = None, kind: Kind = 'internal') -> Callable[[_Function], _Function]:
    """Marks a function, a coroutine function or an async generator function.

    The span of a coroutine covers the time it is awaited. That of an async generator lasts from
    its first item to its end and includes what its consumer does in between; only what runs
    inside the generator becomes its child.

    :param name: what the spans are called; the function's qualified name unless told
    :param kind: what they are
    """

    def decorate(function: _Function) -> _Function:
        if inspect.isasyncgenfunction(function):
            make_wrapper = _wrap_async_generator
        elif inspect.iscoroutinefunction(function):
            make_wrapper = _wrap_coroutine
        else:
            make_wrapper = _wrap_function
        wrapper = make_wrapper(name or function.__qualname__, kind, function)
        return cast(_Function, functools.wraps(function)(wrapper))

    return decorate


def _wrap_function(name: str, kind: Kind, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if spans.tracer is None or not is_followed(parent := current_span.get(), kind):
            return function(*args, **kwargs)
        with Traced(spans.tracer, Span(name, parent, kind)):
            return function(*args, **kwargs)

    return wrapper


def _wrap_coroutine(name: str, kind: Kind, function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if spans.tracer is None or not is_followed(parent := current_span.get(), kind):
            return await function(*args, **kwargs)
        with Traced(spans.tracer, Span(name, parent, kind)):
            return await function(*args, **kwargs)

    return wrapper


def _wrap_async_generator(
    name: str, kind: Kind, function: Callable[..., Any]
) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        items: AsyncIterator[Any] = function(*args, **kwargs)
        if spans.tracer is None or not is_followed(current_span.get(), kind):
            return items
        return _traced_items(spans.tracer, name, kind, items)

    return wrapper


async def _traced_items(
    tracer: Tracer, name: str, kind: Kind, items: Any
) -> AsyncGenerator[Any, Any]:
    span = tracer.enter(Span(name, current_span.get(), kind))
    try:
        step = anext(items)
        while True:
            with _inside(span):
                try:
                    item = await step
                except StopAsyncIteration:
                    return
            try:
                step = items.asend((yield item))
            except GeneratorExit:
                with _inside(span):
                    await items.aclose()
                raise
            except BaseException as error:
                step = items.athrow(error)
    except GeneratorExit:  # the consumer wants no more, which is no error
        raise
    except BaseException as error:
        span.error = error
        raise
    finally:
        tracer.exit(span)


@contextlib.contextmanager
def _inside(span: Span) -> Iterator[None]:
    token = current_span.set(span)
    try:
        yield
    finally:
        current_span.reset(token)
