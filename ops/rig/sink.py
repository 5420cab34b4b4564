"""The outside world: receivers that take, defer and refuse mail.

One process listens on the address of every mail exchanger of `cast.MX` and on
the provider's own mailbox store (LMTP). What it decided is appended to a book,
one JSON object a line, so that the truth about a run never comes from the logs.
"""

import asyncio
import json
import random
import re
import sys
import time
from collections import defaultdict, deque

import cast

STORE = f"store-1.{cast.PROVIDER}"
SPAM = "X-Rig-Campaign:"
rng = random.Random(99)
ALNUM = "0123456789ABCDEFGHJKLMNPQRSTVWXYZ"


def token(n, alphabet=ALNUM):
    return "".join(rng.choice(alphabet) for _ in range(n))


class Book:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")

    def write(self, **row):
        self.file.write(json.dumps({"t": round(time.time(), 3), **row}, ensure_ascii=False) + "\n")


class Exchanger:
    """One receiver: its manner, and what it remembers about those who send to it."""

    houses = {}

    def __init__(self, name, ip, style, policy):
        self.name, self.ip, self.style, self.policy = name, ip, style, policy
        self.seen = {}                      # greylist: triplet -> first attempt
        # Peer -> times of refused recipients; known to all exchangers of one house.
        self.bad = Exchanger.houses.setdefault(name.split(".", 1)[1], defaultdict(deque))

    def unknown(self, rcpt):
        return {
            "big": ["550-5.1.1 The mailbox you are trying to reach does not exist. Please check",
                    f"550 5.1.1 the address. https://help.inboxly.example/?p=NoSuchUser {token(12, '0123456789abcdef')} - ismtp"],
            "cloud": ["550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302). "
                      f"[{token(13)}.prod.webpost.test {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}]"],
            "exim": ["550 No such user here"],
            "qmail": ["553 sorry, no mailbox here by that name. (#5.7.1)"],
        }.get(self.style, [f"550 5.1.1 <{rcpt}>: Recipient address rejected: User unknown in virtual mailbox table"])

    def full(self, rcpt):
        return {
            "big": ["552-5.2.2 The recipient's inbox is out of storage space. Please direct",
                    "552 5.2.2 the recipient to https://help.inboxly.example/?p=OverQuota - ismtp"],
            "exim": ["552 Mailbox quota exceeded for this recipient"],
        }.get(self.style, [f"552 5.2.2 <{rcpt}>: Recipient address rejected: mailbox full"])

    def accepted(self):
        now = int(time.time())
        return {
            "big": f"250 2.0.0 OK  {now} {token(13, '0123456789abcdef')}-{token(11, '0123456789abcdef')}si{rng.randrange(10**6, 10**7)}b3a.{rng.randrange(100, 999)} - ismtp",
            "cloud": f"250 2.6.0 <{token(32, '0123456789abcdef')}@{token(13)}.webpost.test> [InternalId={rng.randrange(10**12, 10**13)}, Hostname={token(13)}.prod.webpost.test] {rng.randrange(9000, 70000)} bytes in 0.{rng.randrange(100, 900)}, {rng.randrange(20, 90)}.{rng.randrange(100, 999)} KB/sec Queued mail for delivery",
            "exim": f"250 OK id=1vN{token(3, 'abcdefghXYZ')}-{token(11, '0123456789abcdefXYZ')}-{token(4, '0123456789abc')}",
            "qmail": f"250 ok {now} qp {rng.randrange(1000, 32000)}",
        }.get(self.style, f"250 2.0.0 Ok: queued as {token(11, '0123456789ABCDEF')}")

    def recent_bad(self, peer, window_s):
        times = self.bad[peer]
        while times and times[0] < time.time() - window_s:
            times.popleft()
        return len(times)

    def rcpt(self, peer, sender, rcpt):
        """The reply's lines to RCPT TO."""
        now = time.time()
        if self.policy == "never":
            return [f"452 4.2.2 <{rcpt}>: Recipient address rejected: mailbox temporarily over quota"]
        if self.policy == "listing" and self.recent_bad(peer, 400) >= 4:
            return [f"550 5.7.1 Service unavailable; client [{peer}] blocked using bl.ironlist.example; "
                    f"https://bl.ironlist.example/q/{peer}"]
        if self.policy == "ratelimit" and self.recent_bad(peer, 45) >= 14:
            return [f"421-4.7.28 [{peer}] An unusual rate of unsolicited mail comes from your",
                    "421 4.7.28 address and is temporarily limited. https://help.inboxly.example/?p=UnsolicitedRateLimit - ismtp"]
        if self.policy in ("greylist", "greylist-short"):
            key = (peer, sender, rcpt)
            first = self.seen.setdefault(key, now)
            if now - first < 12:
                if self.policy == "greylist-short":
                    return ["451 4.7.1 Try again later"]
                return [f"450 4.2.0 <{rcpt}>: Recipient address rejected: Greylisted, see "
                        "http://greylist.kvarnby.example/help.html"]
        state = cast.mailbox(rcpt)
        if state == "ok":
            return ["250 2.1.5 Ok"]
        self.bad[peer].append(now)
        return self.unknown(rcpt) if state == "unknown" else self.full(rcpt)

    def data(self, peer, body):
        """The reply's lines to the whole message."""
        if SPAM in body:
            sort = re.search(SPAM + r" (\d+)", body)
            nth = int(sort.group(1)) if sort else 0
            if self.policy == "listing":
                self.bad[peer].append(time.time())
                return ["554 5.7.1 Spam message rejected"]
            if self.policy == "spam" and nth % 3 != 0:
                return [f"554 5.7.1 [CS01] Message rejected due to content restrictions; spam score 11.{nth % 10}"]
            if self.style == "postfix" and nth % 5 == 4:
                return ["550 5.7.1 id=" + token(8) + " Message contains spam or junk content"]
        return [self.accepted()]


class Session:
    def __init__(self, mx, book, reader, writer, lmtp=False):
        self.mx, self.book, self.reader, self.writer, self.lmtp = mx, book, reader, writer, lmtp
        self.peer = writer.get_extra_info("peername")[0]
        self.helo, self.sender, self.rcpts = "", None, []

    async def say(self, *lines):
        for line in lines:
            self.writer.write(line.encode("utf-8", "surrogateescape") + b"\r\n")
        await self.writer.drain()

    def note(self, rcpt, lines, stage, message_id=None):
        first = lines[-1]
        self.book.write(mx=self.mx.name, peer=self.peer, helo=self.helo, sender=self.sender, rcpt=rcpt,
                        code=int(first[:3]), stage=stage, message_id=message_id, reply=first)

    async def run(self):
        name = self.mx.name
        await self.say(f"220 {name} {'LMTP' if self.lmtp else 'ESMTP'} ready")
        while raw := await self.reader.readline():
            line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
            verb = line.upper()
            if verb.startswith(("EHLO ", "LHLO ")):
                self.helo = line[5:]
                utf8 = [] if name == "mx.mailnook.example" else ["250-SMTPUTF8"]
                await self.say(f"250-{name}", "250-PIPELINING", "250-SIZE 36700160", "250-8BITMIME", *utf8,
                               "250 ENHANCEDSTATUSCODES")
            elif verb.startswith("HELO "):
                self.helo = line[5:]
                await self.say(f"250 {name}")
            elif verb.startswith("MAIL FROM:"):
                self.sender, self.rcpts = re.search(r"<(.*?)>", line).group(1).lower(), []
                await self.say("250 2.1.0 Ok")
            elif verb.startswith("RCPT TO:"):
                rcpt = re.search(r"<(.*)>", line).group(1)
                await asyncio.sleep(rng.uniform(0.005, 0.05))
                lines = ["250 2.1.5 Ok"] if self.lmtp else self.mx.rcpt(self.peer, self.sender, rcpt)
                if lines[-1].startswith("250"):
                    self.rcpts.append(rcpt)
                else:
                    self.note(rcpt, lines, "rcpt")
                await self.say(*lines)
            elif verb == "DATA":
                if not self.rcpts:
                    await self.say("554 5.5.1 Error: no valid recipients")
                    continue
                await self.say("354 End data with <CR><LF>.<CR><LF>")
                await self.message()
            elif verb == "QUIT":
                await self.say("221 2.0.0 Bye")
                break
            else:
                await self.say("250 2.0.0 Ok")
        self.writer.close()

    async def message(self):
        parts = []
        while (raw := await self.reader.readline()) not in (b".\r\n", b""):
            parts.append(raw)
        body = b"".join(parts).decode("utf-8", "replace")
        found = re.search(r"^Message-ID:\s*(\S.*?)\s*$", body.split("\r\n\r\n")[0], re.M | re.I)
        message_id = found.group(1) if found else None
        await asyncio.sleep(rng.uniform(0.05, 0.4))
        if self.lmtp:
            for rcpt in self.rcpts:
                lines = [f"250 2.0.0 <{rcpt}> {token(22)} Saved"]
                self.note(rcpt, lines, "data", message_id)
                await self.say(*lines)
        else:
            lines = self.mx.data(self.peer, body)
            for rcpt in self.rcpts:
                self.note(rcpt, lines, "data", message_id)
            await self.say(*lines)
        self.rcpts = []


async def serve(mx, book, port, lmtp=False):
    async def handle(reader, writer):
        try:
            await asyncio.wait_for(Session(mx, book, reader, writer, lmtp).run(), 120)
        except (ConnectionError, asyncio.TimeoutError):
            writer.close()
    return await asyncio.start_server(handle, mx.ip, port)


async def main():
    book = Book(sys.argv[1])
    servers = [await serve(Exchanger(name, **mx), book, 25) for name, mx in cast.MX.items()]
    store = Exchanger(STORE, cast.HOSTS["store-1"][0], "store", None)
    servers.append(await serve(store, book, 24, lmtp=True))
    await asyncio.gather(*(s.serve_forever() for s in servers))


if __name__ == "__main__":
    asyncio.run(main())
