"""The only room that imports Ray. What Ray reads while it is imported is set here, before any module of it can."""

from __future__ import annotations

import os

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # reports wait for a poll: 1 s of it each epoch by default
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",  # a machine that is asked for boots, and installs, for long
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_ON_LOOPBACK = {
    # By its name for other systems, but here too it makes Ray live on 127.0.0.1 and listen nowhere else; without it Ray
    # 2.60 takes the machine's outward address instead, also when asked for `_node_ip_address="127.0.0.1"`, and also
    # when told to join a cluster at 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_OWN_RAY = {
    # A Ray of its own does not come back, so less than the default minute. But Ctrl-C reaches Ray too, and its end must
    # not end the driver before this has kept what it has: at 10 s a busy machine did that.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
}


def remote_address() -> str | None:
    """The cluster that RAY_ADDRESS names; None where a study is to start a Ray of its own."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


def _defaults() -> dict[str, str]:
    address = remote_address()
    if address is None:
        return _DEFAULTS | _ON_LOOPBACK | _OWN_RAY
    on_loopback = address.startswith(("127.", "localhost:", "[::1]:"))
    return _DEFAULTS | (_ON_LOOPBACK if on_loopback else {})


for _name, _value in _defaults().items():
    os.environ.setdefault(_name, _value)
