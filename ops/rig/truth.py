"""Writes what happened in a run, from the clients' and the receivers' books alone.

Usage: truth.py VARIANT BOOKS > truth.json. The logs are not read.
"""

import json
import sys
from collections import Counter, defaultdict
from datetime import datetime, timezone
from pathlib import Path

import cast


def rows(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def iso(t):
    return datetime.fromtimestamp(t, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def network(ip):
    return ":".join(ip.split(":")[:3]) + "::/48" if ":" in ip else ".".join(ip.split(".")[:2]) + ".0.0/16"


def host(row):
    """Which of the provider's machines the receiver talked to, by its greeting."""
    return row["helo"].split(".")[0]


def why_not(rcpt):
    """Why a recipient that no receiver took or refused got nothing."""
    if rcpt == cast.TYPO_RCPT:
        return "no_such_domain"
    if rcpt == cast.UTF8_REFUSED_RCPT:
        return "smtputf8_not_offered"
    return "expired"


def tally(messages, answers):
    """One account's counts from its messages and from the receivers' answers to them."""
    rcpts = [r for m in messages for r in m["expanded"]]
    ok = [a for a in answers if a["code"] < 400]
    refused = [a for a in answers if a["code"] >= 500]
    sent = Counter(r.lower() for r in rcpts)
    for a in ok + refused:
        sent[a["rcpt"].lower()] -= 1
    left = Counter()
    for rcpt, n in sent.items():
        assert n >= 0, (rcpt, n)
        if n:
            left[why_not(rcpt)] += n
    out = {
        "messages": len(messages),
        "recipients": len(rcpts),
        "distinct_recipients": len({r.lower() for r in rcpts}),
        "delivered": len(ok),
        "refused": len(refused),
        "refused_codes": dict(sorted(Counter(a["code"] for a in refused).items())),
        "deferred_attempts": len([a for a in answers if 400 <= a["code"] < 500]),
        "bounced_unsent": left["no_such_domain"] + left["smtputf8_not_offered"] + left["filter"],
        "expired": left["expired"],
        "relays": dict(sorted(Counter(host(a) for a in ok + refused).items())),
        "client_ips": sorted({m["client_ip"] for m in messages}),
        "envelope_senders": sorted({m["mail_from"] for m in messages}),
    }
    assert out["recipients"] == out["delivered"] + out["refused"] + out["bounced_unsent"] + out["expired"], out
    return out


def main():
    variant, books = sys.argv[1], Path(sys.argv[2])
    clients, sink = rows(books / "clients.jsonl"), rows(books / "sink.jsonl")
    owner = cast.account_of_sender()
    sent, answers, auth = defaultdict(list), defaultdict(list), defaultdict(Counter)
    for row in clients:
        account = row["login"].lower()
        if row["kind"] == "sent":
            sent[account].append(row)
        elif row["kind"] == "auth":
            auth[account]["ok" if row["ok"] else "failed"] += 1
        elif row["kind"] == "dropped":
            auth[account]["dropped"] += 1
    bounces = 0
    for row in sink:
        if row["sender"]:
            answers[owner[row["sender"]]].append(row)
        else:
            bounces += 1

    # The filter answers as a receiver does, but keeps a book of its own.
    scanner = books / "scanner.jsonl"
    if scanner.exists():
        for row in rows(scanner):
            answers[owner[row["sender"]]].append(row)

    accounts = {}
    for account in sorted(sent):
        accounts[account] = tally(sent[account], answers[account]) | {
            "log_ins": auth[account]["ok"], "failed_log_ins": auth[account]["failed"],
            "dropped_messages": auth[account]["dropped"],
        }
    burst = [m for m in sent[cast.HIJACKED] if m["burst"]]
    strangers = {r for m in burst for r in m["rcpts"]}
    hijack = tally(burst, [a for a in answers[cast.HIJACKED] if a["rcpt"] in strangers])
    per_message = defaultdict(list)
    for a in answers[cast.HIJACKED]:
        per_message[a["rcpt"]].append(a)
    truth = {
        "variant": variant,
        "year": datetime.fromtimestamp(clients[0]["t"], timezone.utc).year,
        "zone": "UTC",
        "first_ts": iso(min(r["t"] for r in clients)),
        "last_client_ts": iso(max(r["t"] for r in clients)),
        "own_hosts": [f"{h}.{cast.PROVIDER}" for h in cast.HOSTS],
        "hijacked": {
            "account": cast.HIJACKED,
            "first_spam_ts": iso(burst[0]["t"]),
            "first_spam_queue_id": burst[0]["queue_id"],
            "last_spam_ts": iso(burst[-1]["t"]),
            **hijack,
            "client_networks": sorted({network(m["client_ip"]) for m in burst}),
            "queue_ids": [m["queue_id"] for m in burst],
            "per_message": [
                {"ts": iso(m["t"]), "queue_id": m["queue_id"], "client_ip": m["client_ip"],
                 "message_id": m["message_id"], "recipients": len(m["rcpts"]),
                 "refused": sum(a["code"] >= 500 for r in m["rcpts"] for a in per_message[r])}
                for m in burst],
        },
        "accounts": accounts,
        "failed_log_ins": sum(r["kind"] == "auth" and not r["ok"] for r in clients),
        "failed_log_ins_unknown_user": sum(
            c["failed"] for a, c in auth.items() if a not in {x.lower() for x in cast.ACCOUNTS}),
        "bounce_messages_to_customers": bounces,
    }
    json.dump(truth, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
