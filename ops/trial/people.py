"""Customers of the trial, who write to people they know, and the one whose password somebody else has."""

import base64
import json
import random
import smtplib
import socket
import threading
from email.utils import formatdate

from outside import MARK, RECEIVERS, Rows
from world import RELAYS, SUBMISSION

NAMES = "ann ben cleo dora emil fay gus hana ivo jule kim lars".split()
FIRMS = ["brightleaf.example", "alderway.example", "stonemill.example"]
ACCOUNTS = [f"{name}@{FIRMS[n % 3]}" for n, name in enumerate(NAMES)]
VICTIM = ACCOUNTS[3]
# Where the hijacker comes from: one address each, of networks that nobody had used.
FOREIGN = [f"198.18.{n}.9" for n in range(1, 4)]
HISTORY_DAYS = 21
DAY_MESSAGES = 10


def office(account):
    """The address that an account's owner sends from."""
    return f"198.51.100.{10 + ACCOUNTS.index(account)}"


def contacts(account):
    """Whom an account writes to."""
    dice = random.Random(account)
    return [f"{dice.choice(['olga', 'pete', 'rosa', 'sven'])}{n}@{dice.choice(list(RECEIVERS))}" for n in range(8)]


def history(now_s):
    """What they all sent in the weeks before, as events: so each is known, and the burst is a surprise."""
    rows = []
    for account in ACCOUNTS:
        dice = random.Random("h" + account)
        for day in range(1, HISTORY_DAYS + 1):
            for n in range(DAY_MESSAGES):
                at = now_s - day * 86_400 + n * 3_000 + dice.randrange(2_000)
                if at > now_s - 7_200:
                    continue
                relay, rcpt, name = dice.choice(RELAYS)[0], dice.choice(contacts(account)), f"H{day}x{n}"
                base = {"v": 1, "ts": at, "account": account, "relay": relay, "queue_id": name}
                rows.append((at, {**base, "kind": "send", "client_ip": office(account), "rcpts": [rcpt]}))
                rows.append((at + 2, {**base, "kind": "outcome", "rcpt": rcpt, "status": "delivered", "dsn": "2.0.0"}))
    rows.sort(key=lambda row: row[0])
    return "".join(json.dumps(event) + "\n" for _, event in rows)


class Sent(Rows):
    """What the submission host answered."""

    def of(self, spam, taken):
        """Rows of spam or of customers' mail, taken or not."""
        with self.lock:
            return [r for r in self.rows if r["spam"] == spam and (r["code"] == 250) == taken]


def send(sent, account, source, rcpts, spam=False):
    """One message in a session of its own, as a mail client does. Gives the answer's code."""
    number = f"{random.getrandbits(48):012x}"
    row = {"account": account, "rcpts": rcpts, "spam": spam, "id": f"<{number}@{account.partition('@')[2]}>"}
    try:
        with smtplib.SMTP(SUBMISSION, 587, local_hostname="[client]", timeout=60, source_address=(source, 0)) as smtp:
            smtp.ehlo()
            token = base64.b64encode(f"\0{account}\0{account}".encode()).decode()
            code, words = smtp.docmd("AUTH", "PLAIN " + token)
            if code == 235:
                code, words = smtp.mail(account)
            for rcpt in rcpts if code == 250 else []:
                code, words = smtp.rcpt(rcpt)
                if code != 250:
                    break
            if code == 250:
                mark = f"{MARK} yes\r\n" if spam else ""
                head = f"From: <{account}>\r\nTo: <{rcpts[0]}>\r\nDate: {formatdate()}\r\nMessage-ID: {row['id']}\r\n{mark}"
                code, words = smtp.data(f"{head}Subject: trial\r\n\r\nHello.\r\n".encode())
            sent.write(**row, code=code, words=words.decode("utf-8", "replace"))
            return code
    except (OSError, smtplib.SMTPException) as why:
        sent.write(**row, code=0, words=repr(why))
        return 0


def live(sent, account, stop, pause_s):
    """An owner: writes to people whom they know until told to stop."""
    dice = random.Random()
    known = contacts(account)
    while not stop.wait(dice.uniform(0.5, 1.5) * pause_s):
        send(sent, account, office(account), dice.sample(known, dice.choice([1, 1, 1, 2])))


def burst(sent, stop, rate, recipients):
    """Whoever has the password: `rate` messages a second to strangers, some of whom do not exist."""
    def one(n):
        dice = random.Random()
        while not stop.wait(dice.uniform(0.5, 1.5) * len(FOREIGN) / rate):
            strangers = [
                f"{'gone-' if dice.random() < 0.15 else ''}{dice.getrandbits(32):x}@{dice.choice(list(RECEIVERS))}"
                for _ in range(recipients)
            ]
            send(sent, VICTIM, FOREIGN[n], strangers, spam=True)

    threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(len(FOREIGN))]
    for thread in threads:
        thread.start()
    return threads


def lets_in(port):
    """Dovecot's authentication protocol, as Postfix asks it: a log-in name is let in with itself as its password."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve(stream):
        with stream, stream.makefile("rw", encoding="utf-8", newline="\n") as talk:
            talk.write(f"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t{'0' * 32}\nDONE\n")
            talk.flush()
            for line in talk:
                words = line.rstrip("\n").split("\t")
                if words[0] != "AUTH":
                    continue
                given = next((w[5:] for w in words if w.startswith("resp=")), "")
                _, user, password = (base64.b64decode(given).decode().split("\0") + ["", "", ""])[:3]
                is_known = user in ACCOUNTS and password == user
                talk.write(f"OK\t{words[1]}\tuser={user}\n" if is_known else f"FAIL\t{words[1]}\tuser={user}\n")
                talk.flush()

    def accept():
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=serve, args=(stream,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
