#!/bin/sh
# /usr/local/bin/syncect: the command of this machine's node, with its settings and, typed as root, as the node's user.
# Without the settings a command would look at another, empty node; a file that root made could be closed to the node.
export SYNCECT_CONFIG="${SYNCECT_CONFIG:-/etc/syncect/node.toml}"
export SYNCECT_NODE__DATA_DIR="${SYNCECT_NODE__DATA_DIR:-/var/lib/syncect}"
if [ "$(id -u)" = 0 ]; then
    exec runuser -u syncect -- /opt/syncect/bin/syncect "$@"
fi
exec /opt/syncect/bin/syncect "$@"
