#!/bin/sh
# A small certification authority for DICOM TLS, made with OpenSSL: certificates.sh FOLDER NAME...
# For each NAME (the host name or IP address by which others call it; node=HOST gives the files another name) it writes
# FILE.key and FILE.pem, signed by FOLDER/ca.pem. The authority is made once, and stays. A name that has a certificate
# gets a new one with a new key: that is the renewal. DAYS=397 in the environment is how long they are valid.
# Where the hospital has an authority of its own, use that one; this is for tests and for small sites.
set -eu
umask 077
if [ $# -lt 2 ]; then
    echo "usage: certificates.sh FOLDER NAME..." >&2
    exit 2
fi
folder=$1
shift
days=${DAYS:-397}
mkdir -p "$folder"
cd "$folder"
if [ ! -e ca.key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=syncect CA" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -keyout ca.key -out ca.pem 2>/dev/null
    chmod 644 ca.pem
    echo "made $folder/ca.pem; keep ca.key away from the node"
fi
for name in "$@"; do
    file=${name%%=*}
    host=${name#*=}
    case "$host" in
        *[!0-9.]*) subject="DNS:$host" ;;
        *) subject="IP:$host" ;;
    esac
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$host" \
        -keyout "$file.key.new" -out "$file.csr" 2>/dev/null
    printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n' \
        "$subject" >"$file.ext"
    openssl x509 -req -in "$file.csr" -CA ca.pem -CAkey ca.key -days "$days" -extfile "$file.ext" \
        -out "$file.pem.new" 2>/dev/null
    openssl verify -CAfile ca.pem "$file.pem.new" >/dev/null
    rm "$file.csr" "$file.ext"
    chmod 644 "$file.pem.new"
    mv "$file.key.new" "$file.key"
    mv "$file.pem.new" "$file.pem"
    echo "made $folder/$file.pem for $host, valid for $days days"
done
