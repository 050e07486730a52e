from __future__ import annotations

import socket
from pathlib import Path

import pytest

from taskvault.protocol.address import socket_address


@pytest.mark.parametrize("depth", [1, 12], ids=["short", "longer than a socket address can be"])
def test_a_socket_is_reached_however_long_its_path_is(tmp_path: Path, depth: int) -> None:
    home = tmp_path.joinpath(*["d" * 20] * depth)
    home.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with socket_address(home) as address:
            listener.bind(address)
        listener.listen()
        with socket_address(home) as address:
            client.connect(address)
    assert (home / "control.sock").is_socket()
