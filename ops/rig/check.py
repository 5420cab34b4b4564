"""Compares a folder's logs with its truth.json, and says what does not agree.

Usage: check.py FOLDER. Reads the logs in a plain way of its own, on purpose not
with the project's parser. Exit status 1 where anything differs.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from datetime import datetime, timezone
from pathlib import Path

LINE = re.compile(r"^(\w{3} [ \d]\d \d\d:\d\d:\d\d) (\S+) ([\w./-]+)\[\d+\]: (.*)$")
QID = re.compile(r"^([0-9A-F]{9,12}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{14,17}): (.*)$")
TO = re.compile(r"^to=<(.*?)>, (?:orig_to=<.*?>, )?relay=(\S+?),.* dsn=([\d.]+), status=(\w+) \((.*)\)$")
QUEUED = re.compile(r"queued as (\w+)$")


class Message:
    def __init__(self):
        self.account = self.message_id = self.sender = self.ts = None
        self.nrcpt, self.to, self.expired, self.passed_over = 0, [], False, 0


def read(folder):
    """(host, queue id) -> messages; and the lines that belong to none."""
    messages, others = defaultdict(list), []
    for path in sorted(folder.glob("*.log")):
        current = {}
        for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            m = LINE.match(line)
            assert m, (path.name, line)
            stamp, host, tag, rest = m.groups()
            assert host == path.stem, (path.name, host)
            q = QID.match(rest)
            if not q:
                others.append((host, tag, rest))
                continue
            qid, rest = q.groups()
            if qid not in current:
                current[qid] = Message()
                messages[host, qid].append(current[qid])
            msg = current[qid]
            if user := re.search(r"sasl_username=(\S+)", rest):
                msg.account = user.group(1).lower()
            if rest.startswith("message-id="):
                msg.message_id = rest[11:]
            elif f := re.match(r"from=<(.*?)>, size=\d+, nrcpt=(\d+)", rest):
                msg.sender, msg.nrcpt = f.group(1), int(f.group(2))
                msg.ts = msg.ts or stamp
            elif "status=expired" in rest:
                msg.expired = True
            elif t := TO.match(rest):
                msg.to.append(t.groups())
            elif re.match(r"host \S+ said: 4", rest):
                # Deferred by one exchanger, and the next one is asked: names no recipient.
                msg.passed_over += 1
            elif rest == "removed":
                del current[qid]
    return messages, others


class Outcomes:
    def __init__(self):
        self.delivered = self.refused = self.deferred = self.unsent = self.expired = 0
        self.relays, self.unmatched = Counter(), 0


def follow(messages, own, host, msg, into):
    """Adds what became of a message, over as many of our own hosts as it took."""
    last = {}
    into.deferred += msg.passed_over
    for rcpt, relay, _, status, words in msg.to:
        to_own = relay.split("[")[0] in own or "[127.0.0.1]" in relay
        queued = QUEUED.search(words)
        if to_own and status == "sent" and queued:
            last[rcpt] = ("over", queued.group(1))
        else:
            said = " said: " in words
            last[rcpt] = (status, said)
            if status == "sent":
                into.delivered += 1
                into.relays[host] += 1
            elif status == "bounced" and said:
                into.refused += 1
                into.relays[host] += 1
            elif status == "bounced":
                into.unsent += 1
            elif status == "deferred" and said:
                into.deferred += 1
    if msg.expired:
        into.expired += sum(s == "deferred" for s, _ in last.values())
    for qid in dict.fromkeys(q for s, q in last.values() if s == "over"):
        # A message without Message-ID may be given one by the next instance.
        there = [(h, m) for (h, q), ms in messages.items() for m in ms if q == qid and m is not msg]
        if len(there) != 1 or msg.message_id not in ("<>", there[0][1].message_id):
            into.unmatched += 1
            continue
        follow(messages, own, *there[0], into)


def main():
    folder = Path(sys.argv[1])
    truth = json.loads((folder / "truth.json").read_text())
    messages, others = read(folder)
    own = [h for h in truth["own_hosts"] if not h.startswith("store-")]
    wrong = []

    def same(what, log, true):
        if log != true:
            wrong.append(f"{what}: the logs say {log}, the books {true}")

    by_account = defaultdict(list)
    for (host, qid), several in messages.items():
        for msg in several:
            if msg.account and msg.nrcpt:
                by_account[msg.account].append((host, qid, msg))
    same("accounts", sorted(by_account), sorted(truth["accounts"]))
    sums = Counter()

    def compare(name, its, true):
        o = Outcomes()
        for host, _, msg in its:
            follow(messages, own, host, msg, o)
        same(f"{name} messages", len(its), true["messages"])
        same(f"{name} recipients", sum(m.nrcpt for _, _, m in its), true["recipients"])
        same(f"{name} delivered", o.delivered, true["delivered"])
        same(f"{name} refused", o.refused, true["refused"])
        same(f"{name} unsent", o.unsent, true["bounced_unsent"])
        same(f"{name} expired", o.expired, true["expired"])
        same(f"{name} relays", dict(sorted(o.relays.items())), true["relays"])
        same(f"{name} deferred", o.deferred, true["deferred_attempts"])
        same(f"{name} unmatched", o.unmatched, 0)
        for key in ("messages", "recipients", "delivered", "refused", "expired"):
            sums[key] += true[key]

    for name, true in truth["accounts"].items():
        compare(name, by_account[name], true)
    print("all accounts:", dict(sums))

    bad = truth["hijacked"]
    ids = set(bad["queue_ids"])
    burst = [x for x in by_account[bad["account"]] if x[1] in ids]
    sums.clear()
    compare("the burst", burst, bad)
    print("the burst:", dict(sums), bad["relays"])
    first = datetime.fromisoformat(bad["first_spam_ts"]).astimezone(timezone.utc)
    stamp = datetime.strptime(f"{truth['year']} {burst[0][2].ts}", "%Y %b %d %H:%M:%S").replace(tzinfo=timezone.utc)
    if abs((stamp - first).total_seconds()) > 2:
        wrong.append(f"first spam: the log says {stamp}, the client {first}")

    failed = sum("authentication failed:" in rest and "SASL" in rest for _, _, rest in others)
    same("failed log-ins", failed, truth["failed_log_ins"])
    for (host, _), several in messages.items():
        for msg in several:
            for rcpt, relay, dsn, status, words in msg.to:
                if status == "bounced" and host == "submit-1" and "[127.0.0.1]" not in relay:
                    wrong.append(f"a refusal on {host}: {rcpt} {words}")
    kinds = Counter(tag for _, tag, _ in others)
    print("lines of no message:", sum(kinds.values()), "messages:", sum(map(len, messages.values())))
    for w in wrong:
        print("DIFFERS", w)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
