#!/usr/bin/env bash
# A head that takes pretended nodes from cluster/local.yaml, on loopback, behind a token; it stays in the foreground,
# and Ctrl-C ends it and its nodes. cluster/README.md has what to set for a study on it.
set -euo pipefail
cd "$(dirname "$0")/.."
head_id=$(sed -n 's/^ *head_node_id: *//p' cluster/local.yaml)
address=$(sed -n 's/^ *gcs_address: *\([0-9.:]*\).*/\1/p' cluster/local.yaml)
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 NO_PROXY=127.0.0.1,localhost
(umask 077 && ray get-auth-token --generate >/dev/null)   # makes one only where there is none
# The first lets the provider work at all, the ids say which node is the head, the last keeps every raylet on 127.0.0.1.
export RAY_FAKE_CLUSTER=1 RAY_enable_autoscaler_v2=1 RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
export RAY_OVERRIDE_NODE_ID_FOR_TESTING=$head_id RAY_CLOUD_INSTANCE_ID=$head_id
exec ray start --head --block --node-ip-address="${address%:*}" --port="${address#*:}" --num-cpus=1 \
  --object-store-memory=134217728 \
  --dashboard-host=127.0.0.1 --dashboard-port="${DASHBOARD_PORT:-8265}" \
  --dashboard-agent-listen-port="${AGENT_PORT:-52365}" --ray-client-server-port="${CLIENT_PORT:-10001}" \
  --temp-dir="/tmp/raystudy-local-$(id -u)" --autoscaling-config=cluster/local.yaml
