"""The provider's customers, and one hijacker: log in and send over a few minutes.

Usage: clients.py BOOK VARIANT SECONDS. Every message accepted and every log-in
tried is appended to BOOK, one JSON object a line.
"""

import base64
import hashlib
import heapq
import json
import random
import smtplib
import ssl
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import cast

rng = random.Random(4711)
lock = threading.Lock()
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE


def password(login):
    return "pw-" + hashlib.sha256(login.lower().encode()).hexdigest()[:12]


def message_id(style, sender, n):
    domain = sender.split("@")[1]
    hexes = f"{rng.getrandbits(64):016x}"
    match style:
        case "outlook":
            return f"<0{n:05x}01dc5d{hexes[:2]}${hexes[2:10]}${hexes[8:16]}$@{domain}>"
        case "apple":
            return f"<{str(uuid.UUID(int=rng.getrandbits(128))).upper()}@{domain}>"
        case "thunderbird":
            return f"<{uuid.UUID(int=rng.getrandbits(128))}@{domain}>"
        case "phone":
            return f"<{hexes[:6]}.{hexes[6:]}-{n}.email.android@handset.test>"
        case "web":
            return f"<{hexes}{hexes[::-1]}@webmail.{cast.PROVIDER}>"
        case "bulk":
            return f"<rg2026-11.{n:04d}.{hexes[:8]}@news.{domain}>"
        case "script":
            return f"<{time.strftime('%Y%m%d%H%M%S', time.gmtime())}.{hexes[:6]}.{n}@{domain}>"
        case "hijack":
            return f"<{hexes[:4].upper()}.{rng.randrange(10**6)}.{n}.JavaMail.root@WIN-{hexes[4:10].upper()}>"
    return None


class Rig:
    def __init__(self, book):
        self.file = open(book, "a", buffering=1, encoding="utf-8")
        self.n = 0

    def write(self, **row):
        with lock:
            self.file.write(json.dumps({"t": round(time.time(), 3), **row}, ensure_ascii=False) + "\n")

    def connect(self, ip, port=587):
        v6 = ":" in ip
        host = cast.SUBMISSION_V6 if v6 else cast.HOSTS["submit-1"][1]
        name = f"[{ip}]"
        if port == 465:
            return smtplib.SMTP_SSL(host, port, local_hostname=name, timeout=60, source_address=(ip, 0), context=tls)
        s = smtplib.SMTP(host, port, local_hostname=name, timeout=60, source_address=(ip, 0))
        s.ehlo()
        s.starttls(context=tls)
        s.ehlo()
        return s

    def login(self, s, ip, login, secret, mech="PLAIN"):
        if mech == "PLAIN":
            token = base64.b64encode(f"\0{login}\0{secret}".encode()).decode()
            code, _ = s.docmd("AUTH", "PLAIN " + token)
        else:
            code, _ = s.docmd("AUTH", "LOGIN")
            if code == 334:
                code, _ = s.docmd(base64.b64encode(login.encode()).decode())
            if code == 334:
                code, _ = s.docmd(base64.b64encode(secret.encode()).decode())
        self.write(kind="auth", ok=code == 235, login=login, client_ip=ip)
        return code == 235

    def post(self, s, ip, login, sender, rcpts, style, *, burst=False, utf8=False, mid=None, size=None, drop=False):
        """One message in an open session; the server's queue id, or None."""
        with lock:
            self.n += 1
            n = self.n
        if mid is None:
            mid = message_id(style, sender, n)
        if utf8:
            s.command_encoding = "utf-8"
        code, words = s.mail(sender, ["SMTPUTF8", "BODY=8BITMIME"] if utf8 else [])
        assert code == 250, words
        for rcpt in rcpts:
            code, words = s.rcpt(rcpt)
            assert code == 250, (rcpt, words)
        if drop:
            s.sock.close()
            self.write(kind="dropped", login=login, client_ip=ip, mail_from=sender, rcpts=rcpts)
            return None
        head = [f"From: <{sender}>", f"To: <{rcpts[0]}>", f"Subject: Rig message {n}", f"Date: {formatdate()}"]
        if mid:
            head.append(f"Message-ID: {mid}")
        if burst:
            head.append(f"X-Rig-Campaign: {n % 97}" if burst is True else f"X-Rig-Campaign: {burst}")
        size = size or int(rng.lognormvariate(8.6, 1.1))
        body = "\r\n".join(["x" * 72] * (min(size, 90_000) // 74))
        text = "\r\n".join(head) + "\r\n\r\n" + body + "\r\n"
        code, words = s.data(text.encode("utf-8"))
        assert code == 250, words
        queue_id = words.decode().rsplit(" ", 1)[1]
        expanded = [x for r in rcpts for x in (cast.ALIAS_TO if r == cast.ALIAS else [r])]
        self.write(kind="sent", login=login, client_ip=ip, mail_from=sender, rcpts=rcpts, expanded=expanded,
                   message_id=mid, queue_id=queue_id, burst=bool(burst))
        return queue_id

    def send(self, login, rcpts, *, ip=None, sender=None, style=None, more=(), port=None, typed=None, **kw):
        """Connect, log in, send one message (and `more` lists of recipients), quit.

        `typed` is the log-in name as this device spells it.
        """
        who = cast.ACCOUNTS[login]
        ip = ip or rng.choice(who["ips"])
        sender = sender or login.lower()
        style = style or who["style"]
        if port is None:
            port = 465 if who["style"] in ("apple", "phone") else 587
        s = self.connect(ip, port)
        typed = typed or login
        ok = self.login(s, ip, typed, password(login), "LOGIN" if style in ("outlook", "none") else "PLAIN")
        assert ok, login
        for to in [rcpts, *more]:
            if self.post(s, ip, typed, sender, to, style, **kw) is None:
                return
        s.quit()

    def fail(self, ip, login, secret="123456", mech="LOGIN"):
        s = self.connect(ip)
        assert not self.login(s, ip, login, secret, mech), login
        s.quit()

    def wrong_way(self, ip, mech):
        """A robot that tries a way of logging in that is not offered."""
        s = self.connect(ip)
        s.docmd("AUTH", mech)
        self.write(kind="auth", ok=False, login="", client_ip=ip)
        s.close()

    def no_login(self, ip):
        s = self.connect(ip)
        s.mail("probe@farnet.test")
        s.rcpt("check@mailnook.example")
        s.quit()


def usual(rig, plan, names, seconds, factor):
    """The steady traffic of ordinary accounts: mostly to people they know."""
    for login in names:
        who = cast.ACCOUNTS[login]
        contacts = cast.CONTACTS[login]
        weights = [2 ** -i for i in range(len(contacts))]
        n = max(2, round(who["n"] * factor)) if who["n"] else 0
        for i in range(n):
            at = (i + rng.uniform(0.1, 0.9)) * seconds / n
            k = rng.choices([1, 2, 3, 4], [70, 17, 9, 4])[0]
            to = list(dict.fromkeys(rng.choices(contacts, weights, k=k)))
            kw = {}
            if login == cast.OFFICE:
                kw["sender"] = rng.choice(cast.OFFICE_SENDERS)
            if rng.random() < 0.2:
                kw["more"] = [[rng.choice(contacts)]]
            plan.append((at, lambda login=login, to=to, kw=kw: rig.send(login, to, **kw)))


def hijack(rig, plan, start, n, gap, strangers, ips):
    at, used = start, 0
    for i in range(n):
        k = rng.choice([8, 9, 9, 10])
        to = strangers[used:used + k]
        used += k
        # A machine stays for a few messages, then the next one takes over.
        ip = ips[(i // 3) % len(ips)] if rng.random() < 0.7 else rng.choice(ips)
        plan.append((at, lambda to=to, ip=ip, nth=i + 1: rig.send(
            cast.HIJACKED, to, ip=ip, style="hijack", burst=nth, port=587, size=rng.randrange(2400, 3100))))
        at += rng.uniform(*gap)
    return at


def hops(rig, seconds):
    """The long run. The burst starts at about 55 % of it."""
    plan = []
    S = seconds
    usual(rig, plan, cast.ACCOUNTS, S, 1.0)

    for i, to in enumerate(cast.SUBSCRIBERS):
        plan.append((S * 0.14 + i * S * 0.0017, lambda to=to: rig.send(cast.BULLETIN, [to], size=14_200)))
    for i, to in enumerate(cast.INVOICED):
        plan.append((S * 0.40 + i * 1.4, lambda to=to: rig.send(cast.INVOICES, [to], size=48_000)))
    for i, to in enumerate(cast.SHOP_CUSTOMERS):
        plan.append(((i + rng.random()) * S / len(cast.SHOP_CUSTOMERS), lambda to=to: rig.send(cast.SHOP, [to])))

    once = plan.append
    once((S * 0.22, lambda: rig.send("k.osei@wrenfield.example", cast.CHOIR)))
    once((S * 0.30, lambda: rig.send("pia.lund@saltmarsh-sailing.example", [cast.ALIAS])))
    once((S * 0.08, lambda: rig.send("studio@oakandivy.example", [cast.UTF8_RCPT], utf8=True)))
    once((S * 0.35, lambda: rig.send("studio@oakandivy.example",
                                     [cast.UTF8_REFUSED_RCPT, cast.CONTACTS["studio@oakandivy.example"][0]], utf8=True)))
    once((S * 0.18, lambda: rig.send("hello@oakandivy.example", [cast.QUOTED_RCPT, cast.TAGGED_RCPT])))
    once((S * 0.27, lambda: rig.send("j.brandt@kontor-lindqvist.example",
                                     [cast.TYPO_RCPT, cast.CONTACTS["j.brandt@kontor-lindqvist.example"][1]])))
    once((S * 0.05, lambda: rig.send("m.dufour@oakandivy.example", [cast.DEAD_RCPT])))
    once((S * 0.20, lambda: rig.send("reception@kontor-lindqvist.example",
                                     [cast.NEVER_RCPT, cast.CONTACTS["reception@kontor-lindqvist.example"][0]])))
    # A script that gives two messages the same Message-ID.
    for at in (0.25, 0.45):
        once((S * at, lambda: rig.send(cast.SHOP, [cast.CONTACTS[cast.SHOP][1]],
                                       mid="<stock-report@oakandivy.example>")))
    # The mixed-case log-in, written in lower case by the telephone.
    once((S * 0.33, lambda: rig.send("Ines.Holm@Kontor-Lindqvist.example",
                                     [cast.CONTACTS["Ines.Holm@Kontor-Lindqvist.example"][0]], style="phone",
                                     ip="100.95.88.41",
                                     typed="ines.holm@kontor-lindqvist.example")))
    for at, who in ((0.12, "l.marchetti@wrenfield.example"), (0.47, "deliveries@brightleaf.example")):
        once((S * at, lambda who=who: rig.send(who, [cast.CONTACTS[who][0]], drop=True)))

    # Failed log-ins: slips, strangers' guesses, and the hijacker's before he gets in.
    for at, ip, who in ((0.10, "100.70.201.5", "librarian@wrenfield.example"),
                        (0.11, "100.70.201.5", "librarian@wrenfield.example"),
                        (0.72, "100.79.33.150", "hello@oakandivy.example")):
        once((S * at, lambda ip=ip, who=who: rig.fail(ip, who, "Summer2025")))
    for i in range(16):
        user = rng.choice(["admin", "info", "test", "scanner", "root"]) + "@" + rng.choice(cast.CUSTOMERS)
        once((S * rng.uniform(0.02, 0.97), lambda i=i, user=user: rig.fail(cast.GUESSING_IPS[i % 2], user)))
    for i in range(18):
        user = cast.HIJACKED if i % 3 else rng.choice(["account", "invoices", "info"]) + "@brightleaf.example"
        once((S * (0.34 + 0.011 * i), lambda i=i, user=user: rig.fail(
            cast.HIJACK_IPS[i % 9], user, f"Brightleaf{2010 + i}", "PLAIN" if i % 4 == 0 else "LOGIN")))
    once((S * 0.15, lambda: rig.no_login("198.18.222.5")))
    for at in (0.38, 0.63):
        once((S * at, lambda: rig.wrong_way("100.109.73.18", "CRAM-MD5")))

    hijack(rig, plan, S * 0.57, 40, (3.0, 4.6), cast.STRANGERS, cast.HIJACK_IPS)
    return plan


def filtered(rig, seconds):
    """The short run behind a content filter."""
    plan = []
    S = seconds
    usual(rig, plan, cast.FILTER_ACCOUNTS, S, 0.4)
    once = plan.append
    once((S * 0.10, lambda: rig.send("k.osei@wrenfield.example", cast.CHOIR[:12])))
    once((S * 0.15, lambda: rig.send("hello@oakandivy.example", [cast.ALIAS])))
    once((S * 0.20, lambda: rig.send("orders@brightleaf.example", [cast.TYPO_RCPT])))
    once((S * 0.25, lambda: rig.send("k.osei@wrenfield.example", [cast.CONTACTS["k.osei@wrenfield.example"][0]],
                                     style="none")))
    once((S * 0.30, lambda: rig.send("m.dufour@oakandivy.example",
                                     [cast.CONTACTS["m.dufour@oakandivy.example"][0]], drop=True)))
    for i in range(5):
        once((S * (0.3 + 0.04 * i), lambda i=i: rig.fail(cast.HIJACK_IPS[i], cast.HIJACKED)))
    hijack(rig, plan, S * 0.52, 11, (2.8, 4.4), cast.STRANGERS[400:], cast.HIJACK_IPS[:6])
    return plan


def main():
    book, variant, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    rig = Rig(book)
    plan = {"hops": hops, "filter": filtered}[variant](rig, seconds)
    queue = [(at, i, act) for i, (at, act) in enumerate(plan)]
    heapq.heapify(queue)
    start, waiting = time.time(), []
    with ThreadPoolExecutor(12) as pool:
        while queue:
            at, _, act = heapq.heappop(queue)
            time.sleep(max(0.0, start + at - time.time()))
            waiting.append(pool.submit(act))
    failed = [f.exception() for f in waiting if f.exception()]
    for e in failed:
        print("client:", repr(e), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--passwords"]:
        # Both spellings of a name: Cyrus' sasldb tells cases apart, most directories do not.
        for name in sorted({n for a in cast.ACCOUNTS for n in (a, a.lower())}):
            print(name, password(name))
    else:
        sys.exit(main())
