"""The Ray that a study starts for itself."""

from __future__ import annotations

import pytest

from raystudy.execution.capacity import Node


@pytest.mark.ray
def test_a_local_ray_asks_for_a_token_and_listens_on_loopback(ray: tuple[Node, ...]) -> None:
    import ray as running
    from ray._raylet import AuthenticationMode, get_authentication_mode

    assert get_authentication_mode() == AuthenticationMode.TOKEN
    context = running.get_runtime_context()
    assert context.gcs_address.startswith("127.0.0.1:")
    assert ray[0].cpus >= 1
