# shellcheck shell=bash disable=SC2154,SC2015  # `data` is common.sh's; as in bootstrap
# Only with `topology: ha`: what several nodes do in another way than a single host.
# The scripts beside this file source it, after common.sh.

: "${LEASE:=180}"                                # seconds
: "${instance:=/var/lib/cloud/data/instance-id}" # cloud-init writes it
node=$(<"$instance")
# The table refuses a write with this unless the node has the claim of the item.
if_claimed=(--condition-expression 'begins_with(Claim, :node)')
if_claimed+=(--expression-attribute-values "{\":node\":{\"S\":\"$node \"}}")

# In the place of bootstrap's steps of this name. State is in DynamoDB, so there is no volume. The units still wait for
# a mount, so that Teleport starts after the bootstrap only.
volume() {
  mkdir -p "$data" && chmod 0700 "$data" || fail "$data cannot be written"
  mountpoint -q "$data" || mount --bind "$data" "$data" >&2 || fail "mount --bind $data"
  # User data is the same on all nodes.
  sed -i "s/^  nodename: .*/  nodename: $node/" /etc/teleport.yaml || fail "cannot write /etc/teleport.yaml"
  systemctl start --no-block teleport-peer.service >&2 || true
  say "this is $node; its state is in the table $STATE_TABLE"
}

# Teleport's services reach the auth service through HAProxy only.
runnable() { [[ -x $releases/current/teleport && -s $kubeconfig ]] && command -v haproxy >/dev/null; }

# EC2 gives each node an address when it starts.
address() { :; }

# claim NAME: may this node do NAME now? 0: yes. 1: another node has it. 255: the table does not answer.
#
# A node has it until it releases it, or does not claim it again for LEASE seconds. Nobody's clock counts: another node
# is dead when its claim stays the same for that long here, and each claim has another text than the one before.
claim() {
  local seen=$data/claim-$1 old up since=0 last='' error
  old=$(lock get-item "$1" --consistent-read --query Item.Claim.S --output text) || return 255
  if [[ $old != "$node "* && $old != None ]]; then
    up=$(cut -d. -f1 /proc/uptime)
    { read -r since last <"$seen"; } 2>/dev/null
    # After a reboot, less time has passed by this reckoning than in truth.
    if [[ $last != "$old" ]] || ((since > up)); then
      echo "$up $old" >"$seen"
      return 1
    fi
    ((up - since >= LEASE)) || return 1
  fi
  error=$(lock update-item "$1" --update-expression 'SET Claim = :new' \
    --condition-expression 'attribute_not_exists(Claim) OR Claim = :old' \
    --expression-attribute-values "{\":new\":{\"S\":\"$node $EPOCHREALTIME\"},\":old\":{\"S\":\"$old\"}}" 2>&1) && return
  [[ $error == *ConditionalCheckFailed* ]] && return 1
  echo "$error" >&2
  return 255
}

# release NAME: another node may do it at once.
release() { lock update-item "$1" --update-expression 'REMOVE Claim' "${if_claimed[@]}" >&2; }

# Teleport reads only items with the hash key `teleport`.
lock() {
  timeout 60 aws dynamodb "$1" --table-name "$STATE_TABLE" \
    --key "{\"HashKey\":{\"S\":\"teleport-eks\"},\"FullPath\":{\"S\":\"$2\"}}" "${@:3}"
}
