"""The outside world of the trial: three receivers, and a book of what reached them."""

import asyncio
import re
import threading
import time

# Receiver's domain, and where it listens.
RECEIVERS = {"inboxly.example": "203.0.113.81", "kvarnby.example": "203.0.113.82", "farmail.example": "203.0.113.83"}
# What marks the spam of the trial, so that the book need not guess.
MARK = "X-Trial-Spam:"
# An address that brought so many recipients of spam is on the list that inboxly asks, for so long.
LISTED_FROM, LISTED_S = 60, 600
GREY_S = 6


class Rows:
    """What was answered to whom, with when: written by many threads, read by others."""

    def __init__(self):
        self.lock = threading.Lock()
        self.rows = []

    def write(self, **row):
        with self.lock:
            self.rows.append({"t": time.time(), **row})


class Book(Rows):
    """What the receivers answered."""

    def arrived(self):
        """Message-ID and recipient of all that was taken."""
        with self.lock:
            return {(r["id"], r["rcpt"]): r for r in self.rows if r["code"] == 250}

    def listed(self):
        """Addresses that were refused because they are listed, and when first."""
        with self.lock:
            found = {}
            for r in self.rows:
                if r["why"] == "listed":
                    found.setdefault(r["peer"], r["t"])
            return found


class Receiver:
    """One domain's mail exchanger, with manners of its own."""

    def __init__(self, domain, book):
        self.domain, self.book = domain, book
        self.seen, self.spam = {}, {}

    def rcpt(self, peer, sender, rcpt):
        """The answer to a recipient, and why."""
        if self.domain == "inboxly.example" and self.is_listed(peer):
            return f"550 5.7.1 Service unavailable; client [{peer}] blocked using bl.ironlist.example", "listed"
        if self.domain == "kvarnby.example":
            first = self.seen.setdefault((peer, sender, rcpt), time.time())
            if time.time() - first < GREY_S:
                return f"450 4.2.0 <{rcpt}>: Recipient address rejected: Greylisted", "grey"
        if rcpt.startswith("gone-"):
            return f"550 5.1.1 <{rcpt}>: Recipient address rejected: User unknown", "unknown"
        return "250 2.1.5 Ok", ""

    def is_listed(self, peer):
        return sum(1 for t in self.spam.get(peer, []) if t > time.time() - LISTED_S) >= LISTED_FROM

    async def serve(self, reader, writer):
        """One connection."""
        peer = writer.get_extra_info("peername")[0]

        async def say(line):
            writer.write(line.encode() + b"\r\n")
            await writer.drain()

        sender, rcpts = "", []
        await say(f"220 mx.{self.domain} ESMTP")
        while raw := await reader.readline():
            line = raw.decode("utf-8", "replace").strip()
            verb = line.upper()
            if verb.startswith("EHLO"):
                await say(f"250-mx.{self.domain}")
                await say("250-PIPELINING")
                await say("250 ENHANCEDSTATUSCODES")
            elif verb.startswith("MAIL FROM:"):
                sender, rcpts = re.search("<(.*?)>", line)[1].lower(), []
                await say("250 2.1.0 Ok")
            elif verb.startswith("RCPT TO:"):
                rcpt = re.search("<(.*?)>", line)[1].lower()
                answer, why = self.rcpt(peer, sender, rcpt)
                if why:
                    self.book.write(peer=peer, sender=sender, rcpt=rcpt, code=int(answer[:3]), why=why, id="")
                else:
                    rcpts.append(rcpt)
                await say(answer)
            elif verb == "DATA":
                if not rcpts:
                    await say("554 5.5.1 No valid recipients")
                    continue
                await say("354 End data with <CR><LF>.<CR><LF>")
                await self.data(reader, say, peer, sender, rcpts)
            elif verb == "QUIT":
                await say("221 2.0.0 Bye")
                break
            else:
                await say("250 2.0.0 Ok")
        writer.close()

    async def data(self, reader, say, peer, sender, rcpts):
        """Takes a message."""
        parts = []
        while (raw := await reader.readline()) not in (b".\r\n", b""):
            parts.append(raw)
        body = b"".join(parts).decode("utf-8", "replace")
        found = re.search(r"^Message-ID:\s*(\S+)", body, re.M | re.I)
        is_spam = MARK in body
        if is_spam:
            self.spam.setdefault(peer, []).extend([time.time()] * len(rcpts))
        await asyncio.sleep(0.3 if self.domain == "farmail.example" else 0.02)
        for rcpt in rcpts:
            self.book.write(peer=peer, sender=sender, rcpt=rcpt, code=250, why="spam" if is_spam else "", id=found[1] if found else "")
        # No queue id here: it would look as if it were an own host's.
        await say("250 2.0.0 Taken")


def start(book):
    """Receives in a thread, for as long as the process lives."""
    ready = threading.Event()

    async def main():
        servers = []
        for domain, address in RECEIVERS.items():
            receiver = Receiver(domain, book)

            async def handle(reader, writer, receiver=receiver):
                try:
                    await asyncio.wait_for(receiver.serve(reader, writer), 300)
                except (OSError, asyncio.TimeoutError):
                    writer.close()

            servers.append(await asyncio.start_server(handle, address, 25))
        ready.set()
        await asyncio.gather(*(s.serve_forever() for s in servers))

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    if not ready.wait(20):
        raise RuntimeError("the receivers do not listen within 20 s")
