"""What every request of the API goes through before its handler is asked."""

from typing import Any

from litestar import Request, Response

from latchkey.interfaces.http.methods import methods_of
from latchkey.interfaces.http.parameters import check_parameters
from latchkey.interfaces.http.request import check_owner


async def enter(request: Request[Any, Any, Any]) -> Response[None] | None:
    """The answer, where none but this is needed. Raises what the checks do.

    It runs before each request: for each guard, Litestar would copy the handler, every time.
    """
    await check_owner(request)
    if request.method == "OPTIONS":
        return methods_of(request)
    check_parameters(request)
    return None
