"""Stores read over the network, from servers on loopback."""

import http.client
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from http_server import serve

# ---- the server that the tests read from


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.status, answer.read()


def test_the_server_serves_files_and_parts_of_them(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(range(100)))
    with serve(tmp_path) as server:
        assert get(f"{server.url}/a/b") == (200, bytes(range(100)))
        assert get(f"{server.url}/a/b", Range="bytes=10-19") == (206, bytes(range(10, 20)))
        assert get(f"{server.url}/a/b", Range="bytes=95-") == (206, bytes(range(95, 100)))
        assert get(f"{server.url}/a/b", Range="bytes=-3") == (206, bytes(range(97, 100)))
        head = urllib.request.Request(f"{server.url}/a/b", method="HEAD")
        with urllib.request.urlopen(head, timeout=10) as answer:
            assert answer.headers["Content-Length"] == "100" and answer.read() == b""
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            get(f"{server.url}/c")
        error.value.close()
        assert (server.requests, server.failures) == (6, 0)
        server.gone()
        with pytest.raises(urllib.error.URLError, match="refused"):
            get(f"{server.url}/a/b")


def test_the_server_keeps_connections_and_waits_for_many_requests_at_once(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 1000)
    with serve(tmp_path, latency=0.1) as server:
        host = server.url.removeprefix("http://")

        def twice(_):
            connection = http.client.HTTPConnection(host, timeout=10)
            for _ in range(2):  # on one connection
                connection.request("GET", "/a")
                assert connection.getresponse().read() == b"x" * 1000
            connection.close()

        start = time.perf_counter()
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(twice, range(20)))
        assert 0.2 <= time.perf_counter() - start < 1  # one after the other it would be 4 s


def test_the_server_fails_as_told_and_the_same_way_each_time(tmp_path):
    for name in range(60):
        (tmp_path / str(name)).write_bytes(b"x" * 1000)

    def outcomes():
        with serve(tmp_path, failure_rate=0.3, seed=1) as server:
            found = []
            for name in range(60):
                try:
                    found.append(len(get(f"{server.url}/{name}")[1]))
                except urllib.error.HTTPError as error:
                    found.append(error.code)
                    error.close()
                except (http.client.HTTPException, ConnectionError) as error:
                    found.append(type(error).__name__)
            return found, server.failures

    found, failures = outcomes()
    assert set(found) == {1000, 503, "IncompleteRead", "RemoteDisconnected"}
    assert failures == sum(outcome != 1000 for outcome in found) and 8 <= failures <= 30
    assert outcomes() == (found, failures)
