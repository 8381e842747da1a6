"""Requests that fail for a moment are made again, and no message contains the password of an address."""

from __future__ import annotations

import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import requests

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

ATTEMPTS = 4
PAUSE = 1.0
"""Seconds before the second attempt; doubled for each further one."""
TIMEOUT = 60.0
"""Seconds without a byte before a connection counts as lost."""
TEMPORARY_STATUS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
"""Temporary refusals; those of a broken server (5xx) are temporary, too."""
TEMPORARY_ERRORS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    ConnectionError,
    TimeoutError,
)


def persistently(attempt: Callable[[], T]) -> T:
    """Repeat a failed attempt a few times with growing pauses, as long as the failure is temporary."""
    for pause in (PAUSE * 2**number for number in range(ATTEMPTS - 1)):
        try:
            return attempt()
        except OSError as error:
            if not _is_temporary(error):
                raise
        time.sleep(pause)
    return attempt()


def without_password(text: str) -> str:
    """The text with addresses that have neither user nor password."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _is_temporary(error: OSError) -> bool:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return status in TEMPORARY_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, TEMPORARY_ERRORS)
