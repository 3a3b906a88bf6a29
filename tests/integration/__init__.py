"""Tests that start real Ray and real servers."""

import pytest

#: What those leave to the garbage collector (sockets, log files, SQLAlchemy's pool), and deprecations of their own.
REAL_PARTS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
