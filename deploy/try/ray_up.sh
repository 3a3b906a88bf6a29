#!/usr/bin/env bash
# `ray up` of a head node over ssh to this machine, `ray job submit` of a sweep to it, `ray down`. Run it as root on a machine
# with openssh-server and rsync whose Ray processes may be stopped (Ray's local provider runs `ray stop` first).
set -euo pipefail
cd "$(dirname "$0")/../.."
BIN=$PWD/.venv/bin
work=$(mktemp -d /tmp/ray-up.XXXX)
ssh-keygen -q -t ed25519 -N "" -f "$work/key"
mkdir -p ~/.ssh && cat "$work/key.pub" >>~/.ssh/authorized_keys
mkdir -p /run/sshd && (pgrep -x sshd >/dev/null || /usr/sbin/sshd)

# deploy/onpremise.yaml for this machine: no other nodes, nothing to copy or install
"$BIN/python" - "$work" "$BIN" <<'PYTHON'
import sys, yaml
work, binaries = sys.argv[1:]
config = yaml.safe_load(open("deploy/onpremise.yaml"))
config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
config["auth"] = {"ssh_user": "root", "ssh_private_key": f"{work}/key"}
config |= {"max_workers": 0, "file_mounts": {}, "setup_commands": []}
for key in ("head_start_ray_commands", "worker_start_ray_commands"):
    config[key] = [line.replace("~/lossatlas/.venv/bin", binaries) for line in config[key]]
yaml.safe_dump(config, open(f"{work}/cluster.yaml", "w"))
PYTHON

export PATH=$BIN:$PATH
ray get-auth-token --generate >/dev/null 2>&1 || true # one token per user; what is started here then asks for it
export RAY_AUTH_MODE=token
ray up -y --no-config-cache "$work/cluster.yaml"
ray job submit --address http://127.0.0.1:8265 -- "$BIN/lossatlas" run digits --address auto --home "$work/home" \
  --set 'scientific.loss=[kl,gift]' --set fixed.epochs=10 --set replicates=2 --set early_stopping=null
"$BIN/lossatlas" status digits --home "$work/home"
ray down -y "$work/cluster.yaml"
ray stop # `ray down` calls plain `ray` over ssh, which is not on the path of a login there
