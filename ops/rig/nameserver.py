"""A name server for the rig's private network: A, AAAA, MX and PTR over UDP."""

import socket
import struct

import cast

A = {f"{host}.{cast.PROVIDER}": inside for host, (inside, _) in cast.HOSTS.items()}
PTR = {inside: f"{host}.{cast.PROVIDER}" for host, (inside, _) in cast.HOSTS.items()}
for host, (_, outside) in cast.HOSTS.items():
    if outside:
        PTR[outside] = f"{host}.{cast.PROVIDER}"
for name, mx in cast.MX.items():
    A[name] = mx["ip"]
    PTR[mx["ip"]] = name
A.update(cast.DEAD_MX)
for ip, name in cast.REVERSE.items():
    A[name] = ip
    PTR[ip] = name
PTR.update(cast.REVERSE_LIE)
MX = dict(cast.DOMAINS)
for domain in cast.CUSTOMERS:
    MX[domain] = [f"submit-1.{cast.PROVIDER}"]
TYPE = {1: "A", 12: "PTR", 15: "MX", 28: "AAAA"}


def encode(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".") if p) + b"\0"


def question(packet):
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("latin-1"))
        at += packet[at] + 1
    return ".".join(labels).lower(), struct.unpack("!H", packet[at + 1:at + 3])[0], packet[12:at + 5]


def records(name, kind):
    """The answers, and whether the name exists at all."""
    if kind == "MX" and name in MX:
        return [struct.pack("!H", 10 * (i + 1)) + encode(m) for i, m in enumerate(MX[name])], True
    if kind == "A" and name in A:
        return [socket.inet_aton(A[name])], True
    if kind == "PTR" and name.endswith(".in-addr.arpa"):
        ip = ".".join(reversed(name.removesuffix(".in-addr.arpa").split(".")))
        return ([encode(PTR[ip])], True) if ip in PTR else ([], False)
    return [], name in A or name in MX


def main():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 53))
    while True:
        packet, peer = sock.recvfrom(2048)
        try:
            name, qtype, asked = question(packet)
        except (IndexError, struct.error):
            continue
        found, exists = records(name, TYPE.get(qtype, "?"))
        flags = 0x8580 | (0 if exists else 3)
        reply = packet[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0) + asked
        for data in found:
            reply += b"\xc0\x0c" + struct.pack("!HHIH", qtype, 1, 300, len(data)) + data
        sock.sendto(reply, peer)


if __name__ == "__main__":
    main()
