"""A content filter that Postfix hands mail to, as amavisd does.

It takes a message at :10024, looks at it, gives it back to Postfix at :10025
and answers with what Postfix answered there. One message of the burst it refuses
itself. Usage: scanner.py BOOK.
"""

import asyncio
import json
import random
import smtplib
import sys
import time

PHRASE = b"X-Rig-Campaign: 7\r\n"
rng = random.Random(5)


def hand_back(forwarded, sender, rcpts, body, utf8):
    options = ["SMTPUTF8"] if utf8 else []
    with smtplib.SMTP("127.0.0.1", 10025, local_hostname="localhost", timeout=30) as out:
        out.ehlo()
        for line in forwarded:
            out.docmd(line)
        if utf8:
            out.command_encoding = "utf-8"
        code, words = out.mail(sender, options)
        if code != 250:
            return code, words
        for rcpt in rcpts:
            code, words = out.rcpt(rcpt)
            if code != 250:
                return code, words
        # Not out.data(): it would touch line ends.
        out.putcmd("data")
        out.getreply()
        out.send(body + b".\r\n")
        return out.getreply()


async def session(reader, writer):
    async def say(*lines):
        writer.write(b"".join(line.encode("utf-8", "surrogateescape") + b"\r\n" for line in lines))
        await writer.drain()

    sender, rcpts, helo, utf8, nth, forwarded = "", [], "", False, 0, []
    await say("220 [127.0.0.1] ESMTP scanner service ready")
    while raw := await reader.readline():
        line = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        verb = line.upper()
        if verb.startswith("EHLO"):
            helo = line[5:]
            await say("250-[127.0.0.1]", "250-PIPELINING", "250-SIZE", "250-8BITMIME", "250-SMTPUTF8",
                      "250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE", "250 ENHANCEDSTATUSCODES")
        elif verb.startswith("XFORWARD "):
            # Who really sent it, and the id it had: passed on with the message.
            forwarded.append(line)
            await say("250 2.5.0 Ok XFORWARD")
        elif verb.startswith("MAIL FROM:"):
            sender, rcpts, utf8 = line[line.index("<") + 1:line.index(">")], [], "SMTPUTF8" in verb
            await say(f"250 2.1.0 Sender <{sender}> OK")
        elif verb.startswith("RCPT TO:"):
            rcpts.append(line[line.index("<") + 1:line.rindex(">")])
            await say(f"250 2.1.5 Recipient <{rcpts[-1]}> OK")
        elif verb == "DATA":
            await say("354 End data with <CR><LF>.<CR><LF>")
            parts = []
            while (raw := await reader.readline()) not in (b".\r\n", b""):
                parts.append(raw)
            body, whose, forwarded = b"".join(parts), forwarded, []
            nth += 1
            await asyncio.sleep(rng.uniform(0.1, 0.9))
            if PHRASE in body:
                with open(sys.argv[1], "a", encoding="utf-8") as book:
                    for rcpt in rcpts:
                        book.write(json.dumps({"t": time.time(), "mx": "scanner", "helo": helo, "sender": sender.lower(),
                                               "rcpt": rcpt, "code": 554, "stage": "filter"}) + "\n")
                await say(f"554 5.7.0 Reject, id={rng.randrange(10000, 32000):05d}-{nth:02d} - spam")
                continue
            code, words = await asyncio.to_thread(hand_back, whose, sender, rcpts, body, utf8)
            await say(f"{code} {words.decode()[:5]} from MTA(smtp:[127.0.0.1]:10025): {code} {words.decode()}")
        elif verb == "QUIT":
            await say("221 2.0.0 [127.0.0.1] scanner closing transmission channel")
            break
        else:
            await say("250 2.0.0 Ok")
    writer.close()


async def main():
    server = await asyncio.start_server(session, "127.0.0.1", 10024)
    await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
