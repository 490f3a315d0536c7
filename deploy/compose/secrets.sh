#!/bin/sh
# Makes what compose.yaml reads from ./secrets: a database password and the certificate of the status page. Run it once,
# as root, because the node's user in the container (11112) has to own what it reads: compose/secrets.sh
set -eu
umask 077
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$here/secrets"
cd "$here/secrets"
if [ ! -e database-password ]; then
    openssl rand -hex 24 >database-password
    printf 'database:5432:syncect:syncect:%s\n' "$(cat database-password)" >pgpass
fi
"$here/../certificates.sh" . page=syncect
chmod 755 .
if [ "$(id -u)" = 0 ]; then
    chown 11112:11112 pgpass page.key
    chown 999:999 database-password  # the user of the postgres image
else
    echo "compose/secrets.sh: run it as root, or give pgpass and page.key to user 11112, database-password to 999" >&2
fi
