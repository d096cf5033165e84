"""The Ray that a study starts for itself."""

from __future__ import annotations

import pytest

from raystudy.errors import RaystudyError
from raystudy.execution.capacity import Node
from raystudy.execution.cluster import ray_cluster


@pytest.mark.ray
def test_a_local_ray_asks_for_a_token_and_listens_on_loopback(ray: tuple[Node, ...]) -> None:
    import ray as running
    from ray._raylet import AuthenticationMode, get_authentication_mode

    assert get_authentication_mode() == AuthenticationMode.TOKEN
    context = running.get_runtime_context()
    assert context.gcs_address.startswith("127.0.0.1:")
    assert ray[0].cpus >= 1


@pytest.mark.ray
def test_workers_ask_their_own_ray_even_if_another_was_started_later(ray: tuple[Node, ...]) -> None:
    import ray as running

    @running.remote(num_cpus=0)
    def asks() -> str:
        from ray.dashboard.utils import get_address_for_submission_client

        return str(get_address_for_submission_client(None))

    assert running.get(asks.remote()) == f"http://{running._private.worker.get_dashboard_url()}"


def test_another_ray_on_the_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**_: object) -> None:
        versions = (
            "The cluster was started with:\n    Ray: 2.50.0\n",
            "This process was started with:\n    Ray: 2.60.0\n",
        )
        raise RuntimeError(f"Version mismatch: {''.join(versions)}")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(RaystudyError, match=r"with: Ray: 2\.50\.0 This .* Ray: 2\.60\.0\. A study needs") as raised,
        ray_cluster(),
    ):
        pass
    assert "\n" not in str(raised.value)
