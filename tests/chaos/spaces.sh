#!/usr/bin/env bash
# spaces.sh LIMIT COMMAND...: runs a command for at most LIMIT seconds in network, mount and process namespaces that go with
# it, however it ends; nothing of the machine's own network is touched.
set -euo pipefail
limit=$1
shift

# Root makes namespaces as it is; anybody else needs a user namespace to be root in, which some systems forbid.
spaces=(--net --mount --pid --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || spaces+=(--user --map-root-user)
if ! why=$(unshare "${spaces[@]}" sh -c 'mount -t tmpfs tmpfs /run && ip netns add probe && ip netns exec probe true' 2>&1); then
  echo "chaos: this machine does not permit network namespaces, which the run needs: $why" >&2
  echo "chaos: run as root, in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN if it is one" >&2
  exit 1
fi

# The time-out ends a run that hangs, with all its processes.
# /run is where `ip netns` keeps its names: an empty one of our own, so that they are ours alone.
CHAOS_OUTER_NET=$(readlink /proc/self/ns/net) exec timeout -k 5 "$limit" \
  unshare "${spaces[@]}" sh -c 'mount -t tmpfs tmpfs /run && exec "$@"' sh "$@"
