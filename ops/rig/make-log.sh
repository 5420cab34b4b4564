#!/bin/bash
# Makes the log of a small mail provider with several hops, by real programs.
#
#   ops/rig/make-log.sh hops   [FOLDER]   submission -> HAProxy -> two relays -> outside (about 14 min)
#   ops/rig/make-log.sh filter [FOLDER]   submission with a content filter -> one relay -> outside (about 4 min)
#
# On Debian, as root. FOLDER is tests/fixtures/hops or tests/fixtures/filter by
# default; logs and truth.json there are overwritten. RIG_SECONDS sets how long
# the customers send; RIG_KEEP=1 keeps the working folder.
#
# Postfix, HAProxy and all else run in name spaces of their own: a network of
# nothing but a loopback device, one host name and one view of /etc and /var for
# each machine. The machine's own files and its Postfix are not touched, no packet
# leaves, and when this script ends, however it ends, every process ends with it.
set -euo pipefail
export TZ=UTC LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
domain=harbourmail.example

# ---------------------------------------------------------------- one machine

# Runs as process 1 of a machine of its own until $rig/stop appears.
machine() {
    local name=$1 root=$rig/$1
    hostname "$name"
    echo $((RANDOM % 20000 + 900)) > /proc/sys/kernel/ns_last_pid
    mount --bind "$root/etc" /etc/postfix
    mount --bind "$root/spool" /var/spool/postfix
    mount --bind "$root/lib" /var/lib/postfix
    mount --bind "$root/log" /var/log
    mount --bind "$root/hosts" /etc/hosts
    mount --bind "$rig/resolv.conf" /etc/resolv.conf
    mount --bind "$rig/nsswitch.conf" /etc/nsswitch.conf
    postfix start
    while [ ! -e "$rig/stop" ]; do
        if [ -e "$root/reload" ]; then
            rm "$root/reload"
            postfix reload
        fi
        sleep 0.5
    done
    postfix stop
    # The last lines are still on their way to the file.
    sleep 2
}

# Lays out a machine's folders; its main.cf and master.cf come from standard input.
prepare() {
    local name=$1 root=$rig/$1
    mkdir -p "$root"/{etc,spool,lib,log}
    cp -a /etc/postfix/. "$root/etc/"
    chown postfix: "$root/lib"
    printf '127.0.0.1 localhost\n::1 localhost\n%s %s.%s %s\n' "$2" "$name" "$domain" "$name" > "$root/hosts"
    cat > "$root/etc/main.cf" <<CF
compatibility_level = 3.6
maillog_file = /var/log/mail.log
myhostname = $name.$domain
mydomain = $domain
mydestination = localhost
alias_maps =
alias_database =
local_recipient_maps =
smtpd_banner = \$myhostname ESMTP
biff = no
append_dot_mydomain = no
mynetworks = 127.0.0.0/8 10.20.0.0/24
smtp_tls_security_level = none
minimal_backoff_time = 15s
maximal_backoff_time = 40s
queue_run_delay = 10s
maximal_queue_lifetime = 3m
bounce_queue_lifetime = 3m
transport_maps = texthash:/etc/postfix/transport
CF
    # The customers' own mailboxes are on the store.
    local d
    for d in $customers; do
        echo "$d lmtp:inet:[store-1.$domain]:24"
    done > "$root/etc/transport"
    cat > "$root/etc/master.cf" <<CF
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
lmtp      unix  -       -       n       -       -       lmtp
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
CF
}

start_machine() {
    unshare --mount --uts --pid --fork --kill-child --mount-proc \
        bash "$here/make-log.sh" --machine "$1" > "$rig/$1/console" 2>&1 &
    machines+=($!)
}

# ------------------------------------------------------------------- submit-1

# Arguments: the next machine's name, and how much to log about TLS.
prepare_submission() {
    prepare submit-1 10.20.0.11
    local etc=$rig/submit-1/etc
    cat >> "$etc/main.cf" <<CF
inet_protocols = all
inet_interfaces = 127.0.0.1 10.20.0.11 203.0.113.10 2001:db8:40::10
smtp_bind_address = 10.20.0.11
smtp_address_preference = ipv4
relayhost = [$1.$domain]:25
smtp_destination_recipient_limit = 25
virtual_alias_maps = inline:{ {$alias} }
smtpd_tls_cert_file = /etc/postfix/cert.pem
smtpd_tls_key_file = /etc/postfix/key.pem
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtpd_tls_loglevel = $2
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = /etc/postfix/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
CF
    cat >> "$etc/master.cf" <<CF
submission inet n       -       n       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
smtps     inet  n       -       n       -       -       smtpd
  -o syslog_name=postfix/smtps
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
CF
    mkdir -p "$etc/sasl"
    cat > "$etc/sasl/smtpd.conf" <<CF
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: PLAIN LOGIN
sasldb_path: /etc/postfix/sasldb2
CF
    python3 "$here/clients.py" --passwords | while read -r login secret; do
        saslpasswd2 -p -c -f "$etc/sasldb2" -u "${login#*@}" "${login%@*}" <<< "$secret"
    done
    chown root:postfix "$etc/sasldb2"
    chmod 640 "$etc/sasldb2"
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=submit-1.$domain" \
        -keyout "$etc/key.pem" -out "$etc/cert.pem" 2> "$rig/openssl.out"
}

add_filter() {
    local etc=$rig/submit-1/etc
    echo "content_filter = scan:[127.0.0.1]:10024" >> "$etc/main.cf"
    cat >> "$etc/master.cf" <<CF
scan      unix  -       -       n       -       2       smtp
  -o smtp_bind_address=127.0.0.1
  -o smtp_send_xforward_command=yes
127.0.0.1:10025 inet n  -       n       -       -       smtpd
  -o content_filter=
  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_address_mappings
  -o smtpd_relay_restrictions=permit_mynetworks,reject
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o smtpd_tls_security_level=none
CF
}

# -------------------------------------------------------------- out-1 and out-2

# Arguments: name, inside and outside address, long queue ids, PROXY protocol (yes or no).
prepare_relay() {
    local name=$1 inside=$2 outside=$3 long_ids=$4 proxy=$5
    prepare "$name" "$inside"
    cat >> "$rig/$name/etc/main.cf" <<CF
inet_protocols = ipv4
inet_interfaces = $inside $outside
syslog_name = postfix-out
enable_long_queue_ids = $long_ids
smtp_bind_address = $outside
smtpd_relay_restrictions = permit_mynetworks, reject
CF
    {
        echo "$inside:25 inet n  -       n       -       -       smtpd"
        if [ "$proxy" = yes ]; then
            echo "  -o smtpd_upstream_proxy_protocol=haproxy"
        fi
    } >> "$rig/$name/etc/master.cf"
    # The store is reached from inside.
    sed -i 's/ lmtp:inet/ store:inet/' "$rig/$name/etc/transport"
    cat >> "$rig/$name/etc/master.cf" <<CF
store     unix  -       -       n       -       -       lmtp
  -o smtp_bind_address=$inside
CF
}

balancer() {
    cat > "$rig/haproxy.cfg" <<CF
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 330s
    timeout server 330s
listen mail
    bind 10.20.0.5:25
    balance roundrobin
    option smtpchk EHLO lb-1.$domain
    source 10.20.0.5
    default-server inter 30s fall 3 rise 1
    server out-1 10.20.0.21:25 check
    server out-2 10.20.0.22:25 check check-send-proxy send-proxy-v2
CF
    haproxy -db -f "$rig/haproxy.cfg" > "$rig/haproxy.out" 2>&1 &
    echo $! > "$rig/haproxy.pid"
}

# ------------------------------------------------------------------- the whole

waiting_mail() {
    find "$rig"/*/spool/{maildrop,incoming,active,deferred} -type f 2>/dev/null | wc -l
}

inside() {
    local variant=$1 folder=$2 hosts=(submit-1 out-1) machines=() h address
    local seconds=${RIG_SECONDS:-$([ "$variant" = hops ] && echo 600 || echo 130)}

    ip link set lo up
    # Every made-up network is "here", so no packet has anywhere to go.
    for address in 10.20.0.0/24 100.64.0.0/10 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 198.18.0.0/15; do
        ip route add local "$address" dev lo
    done
    # Postfix wants its own addresses to be the device's.
    for address in $(python3 -c 'import cast; print(*{ip for both in cast.HOSTS.values() for ip in both if ip})'); do
        ip addr add "$address/32" dev lo
    done
    for address in 2001:db8:40::10 $(python3 -c 'import cast; print(*{i for a in cast.ACCOUNTS.values() for i in a["ips"] if ":" in i})'); do
        ip -6 addr add "$address/128" dev lo nodad
    done
    echo "nameserver 127.0.0.1" > "$rig/resolv.conf"
    printf 'passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n' > "$rig/nsswitch.conf"
    mkdir -p "$rig/book"

    customers=$(python3 -c 'import cast; print(*cast.CUSTOMERS)')
    alias=$(python3 -c 'import cast; print(f"{cast.ALIAS} = {chr(44).join(cast.ALIAS_TO)}")')
    if [ "$variant" = hops ]; then
        hosts+=(out-2)
        prepare_submission lb-1 0
        prepare_relay out-1 10.20.0.21 203.0.113.21 no no
        prepare_relay out-2 10.20.0.22 203.0.113.22 yes yes
    else
        prepare_submission out-1 1
        add_filter
        prepare_relay out-1 10.20.0.21 203.0.113.21 no no
    fi

    python3 "$here/nameserver.py" &
    python3 "$here/sink.py" "$rig/book/sink.jsonl" 2> "$rig/sink.err" &
    [ "$variant" = hops ] || python3 "$here/scanner.py" "$rig/book/scanner.jsonl" 2> "$rig/scanner.err" &
    for h in "${hosts[@]}"; do start_machine "$h"; done
    sleep 4
    for h in "${hosts[@]}"; do
        grep -q 'daemon started' "$rig/$h/log/mail.log" || { echo "$h did not start" >&2; exit 1; }
    done
    if [ "$variant" = hops ]; then balancer; fi
    sleep 2

    # While it runs someone reloads a relay and restarts the balancer.
    if [ "$variant" = hops ]; then
        (
            sleep $((seconds / 3))
            touch "$rig/out-2/reload"
            sleep $((seconds / 2))
            kill "$(cat "$rig/haproxy.pid")"
            sleep 6
            balancer
        ) &
    fi
    python3 "$here/clients.py" "$rig/book/clients.jsonl" "$variant" "$seconds" || echo "some client failed" >&2

    # Until the last message is delivered, refused or too old; at most six minutes.
    local i
    for i in $(seq 72); do
        [ "$(waiting_mail)" = 0 ] && break
        sleep 5
    done
    echo "$(waiting_mail) messages left in queues"
    touch "$rig/stop"
    wait "${machines[@]}"

    mkdir -p "$folder"
    for h in "${hosts[@]}"; do cp --no-preserve=all "$rig/$h/log/mail.log" "$folder/$h.log"; done
    python3 "$here/truth.py" "$variant" "$rig/book" > "$folder/truth.json"
    cat "$rig"/*.err >&2
}

# Killing the outermost process ends its process name space, and all in it.
leave() {
    if [ -n "$world" ]; then kill -KILL "$world" 2> /dev/null || true; fi
    if [ -z "${RIG_KEEP:-}" ]; then rm -rf "$rig"; fi
}

main() {
    local variant=$1 folder=${2:-$here/../../tests/fixtures/$1}
    [[ $variant =~ ^(hops|filter)$ ]] || { echo "usage: $0 hops|filter [FOLDER]" >&2; exit 2; }
    [ "$(id -u)" = 0 ] || { echo "$0: needs root" >&2; exit 1; }
    local need=() p
    for p in postfix libsasl2-modules sasl2-bin haproxy openssl iproute2 python3; do
        dpkg -s "$p" > /dev/null 2>&1 || need+=("$p")
    done
    if [ ${#need[@]} -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}"
        # Where a package started what it brought, that is not wanted here.
        if [[ " ${need[*]} " == *" postfix "* ]]; then postfix stop 2> /dev/null || true; fi
    fi
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    rig=$(mktemp -d /tmp/rig.XXXXXX)
    chmod 755 "$rig"
    world=
    trap leave EXIT
    trap 'exit 130' INT TERM HUP
    # In the background, so that a signal is heard at once.
    rig=$rig unshare --net --mount --pid --fork --kill-child --mount-proc \
        bash "$here/make-log.sh" --inside "$variant" "$folder" &
    world=$!
    wait "$world"
    world=
    python3 "$here/check.py" "$folder"
}

export PYTHONPATH=$here
case ${1:-} in
    --machine) machine "$2" ;;
    --inside) export rig; inside "$2" "$3" ;;
    *) main "${1:-}" "${2:-}" ;;
esac
