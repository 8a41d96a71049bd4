# shellcheck shell=bash disable=SC2034  # used by the scripts that source it
# The scripts beside this file source it.
# Each step prints a line to stdout: to the journal and the console.

data=/var/lib/teleport # the data volume, and Teleport's data_dir
tls=$data/tls          # tls/current -> a directory with key.pem and cert.pem
step=start

say() { printf 'teleport-eks: step %s: %s\n' "$step" "$*"; }

fail() {
  say "failed: $*"
  exit 1
}

# pause_after FAILURES: seconds to wait. They double each time, up to PAUSE_MAX.
pause_after() {
  local seconds=$PAUSE_FIRST n=$1
  while ((--n > 0 && seconds < PAUSE_MAX)); do ((seconds *= 2)); done
  echo $((seconds < PAUSE_MAX ? seconds : PAUSE_MAX))
}

# metadata NAME: an item of the instance metadata service, with a session token (IMDSv2).
metadata() {
  local base=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254} token
  token=$(curl -fsS --noproxy '*' --max-time 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' \
    "$base/latest/api/token") || return 1
  curl -fsS --noproxy '*' --max-time 5 -H "X-aws-ec2-metadata-token: $token" "$base/latest/meta-data/$1"
}

# usable_pair KEY CERT: would Teleport start with it? Unless it is self-signed, Teleport checks it
# against the host's trust store, and does not start with an expired or a staging certificate.
usable_pair() {
  local key=$1 cert=$2
  [[ -s $key && -s $cert ]] || { echo "a file is missing"; return 1; }
  [[ $(openssl pkey -in "$key" -pubout 2>/dev/null) == "$(openssl x509 -in "$cert" -noout -pubkey 2>/dev/null)" ]] ||
    { echo "the key does not belong to the certificate"; return 1; }
  openssl x509 -in "$cert" -noout -checkhost "$PROXY_NAME" 2>/dev/null | grep -q 'does match' ||
    { echo "the certificate is not for $PROXY_NAME"; return 1; }
  self_signed "$cert" || openssl verify -untrusted "$cert" "$cert" >/dev/null 2>&1 ||
    { echo "this host does not trust it: $(openssl verify -untrusted "$cert" "$cert" 2>&1 | grep -m1 '^error')"; return 1; }
}

self_signed() {
  [[ $(openssl x509 -in "$1" -noout -subject_hash) == "$(openssl x509 -in "$1" -noout -issuer_hash)" ]]
}

# split_pair PEM FOLDER: writes key.pem and cert.pem.
split_pair() {
  # Not a here-string, because bash may make a file of it.
  printf '%s\n' "$1" | sed -n '/-BEGIN .*PRIVATE KEY-/,/-END .*PRIVATE KEY-/p' >"$2/key.pem"
  printf '%s\n' "$1" | sed -n '/-BEGIN CERTIFICATE-/,/-END CERTIFICATE-/p' >"$2/cert.pem"
}

# install_pair KEY CERT: switches by renaming one symlink. Teleport may read at any moment, and the power
# may fail: there is always the old pair or the new one.
install_pair() {
  local name
  name=$(sha256sum "$2" | cut -c1-16) || return 1
  mkdir -p "$tls" && chmod 0700 "$tls" || return 1
  [[ $(readlink "$tls/current") == "$name" ]] && usable_pair "$tls/current/key.pem" "$tls/current/cert.pem" >/dev/null && return 0
  rm -rf "$tls/.new" "$tls/.current" "${tls:?}/$name" &&
    install -d -m 0700 "$tls/.new" &&
    install -m 0600 "$1" "$tls/.new/key.pem" &&
    install -m 0644 "$2" "$tls/.new/cert.pem" &&
    sync -f "$tls/.new" &&
    mv -T "$tls/.new" "$tls/$name" &&
    ln -s "$name" "$tls/.current" &&
    mv -T "$tls/.current" "$tls/current" || return 1
  # Delete older pairs. certbot has its own archive.
  find "$tls" -mindepth 1 -maxdepth 1 -type d ! -name "$name" -exec rm -rf {} +
}
