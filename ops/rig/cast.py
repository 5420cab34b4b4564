"""Who and what exists in the rig: hosts, outside receivers, accounts, people.

Every name is made up, every domain is below `.example` or `.test`, every
address is from a range that is never routed (RFC 5737, 6598, 2544, 3849,
10/8). One seed makes all of it, so that the receiver, the name server and the
clients agree without talking to each other.
"""

import hashlib
import random

PROVIDER = "harbourmail.example"

# The provider's own machines: name -> (inside address, address towards the world).
HOSTS = {
    "submit-1": ("10.20.0.11", "203.0.113.10"),
    "lb-1": ("10.20.0.5", None),
    "out-1": ("10.20.0.21", "203.0.113.21"),
    "out-2": ("10.20.0.22", "203.0.113.22"),
    "store-1": ("10.20.0.31", None),
}
SUBMISSION_V6 = "2001:db8:40::10"

# The outside: mail exchangers, by manner of speaking.
#   style    whose words the answers are like
#   policy   what the exchanger does beside knowing its users
MX = {
    "mx1.inboxly.example": dict(ip="192.0.2.10", style="big", policy="ratelimit"),
    "mx2.inboxly.example": dict(ip="192.0.2.11", style="big", policy="ratelimit"),
    "mx.mailnook.example": dict(ip="192.0.2.30", style="postfix", policy=None),
    "webpost-test.mail.webpost.test": dict(ip="198.51.100.14", style="cloud", policy="spam"),
    "mx-a.northnet.example": dict(ip="198.51.100.40", style="exim", policy=None),
    "gate.ironpost.example": dict(ip="198.51.100.77", style="postfix", policy="listing"),
    "mail.kvarnby.example": dict(ip="198.51.100.90", style="postfix", policy="greylist"),
    "smtp.lakeside-clinic.example": dict(ip="198.51.100.120", style="postfix", policy="greylist-short"),
    "mx.hostedmail.example": dict(ip="203.0.113.200", style="qmail", policy=None),
    "mx.slowpost.test": dict(ip="203.0.113.230", style="postfix", policy="never"),
}
# Named and addressed, but nothing listens there.
DEAD_MX = {"mail.oldmill.example": "198.51.100.250"}

DOMAINS = {
    "inboxly.example": ["mx1.inboxly.example", "mx2.inboxly.example"],
    "mailnook.example": ["mx.mailnook.example"],
    "webpost.test": ["webpost-test.mail.webpost.test"],
    "northnet.example": ["mx-a.northnet.example"],
    "ironpost.example": ["gate.ironpost.example"],
    "kvarnby.example": ["mail.kvarnby.example"],
    "lakeside-clinic.example": ["smtp.lakeside-clinic.example"],
    "slowpost.test": ["mx.slowpost.test"],
    "oldmill.example": ["mail.oldmill.example"],
}
HOSTED_ELSEWHERE = [
    "fjordbygg.example", "hollowaytax.example", "tidewater-museum.example", "maison-perrin.example",
    "studio-okapi.test", "granite-logistics.example", "rosehip-bakery.example", "delta-pumpen.example",
]
for _d in HOSTED_ELSEWHERE:
    DOMAINS[_d] = ["mx.hostedmail.example"]

CUSTOMERS = [
    "brightleaf.example", "wrenfield.example", "saltmarsh-sailing.example",
    "kontor-lindqvist.example", "oakandivy.example",
]

GIVEN = """amelie anders anna arjun beatriz bjorn carla cedric chiara daniel desta dilan edith elif emil
esther farid fiona frida giulia hakan hanna helga idris ingrid irene ivan jakob jana joao jonas julia kaya
keiko klara kofi lars leila lena liam lucia maarten maeve magnus marek maria marta mateo mina nadia nils
nora olga omar oscar paula pavel petra rafael ravi rosa ruth samir sanna selma simon sofia stefan tamar
teresa thea tomas ulla vera viktor wanda yusuf zoe""".split()
FAMILY = """abara aksoy albrecht almeida andersen bakker baptiste bauer bergman blanchet brandt calloway carvalho
castell dahl danso demir dubois eklund ellery engel farkas ferrante fischer fonseca garnier gruber haddad
halloran hansen hartley hoffmann ibsen iversen jansen jensen kamara keller kovacs kowalski krause larsen
lefevre lindholm lowell madaki marchetti mbeki meier mendes moreau mwangi nakamura novak nyberg okafor olsen
osei pereira petrov quist rahman raske ricci rossi sandoval santos schreiber silva sorensen strand tanaka
teague thorne toth ueda vance varga vogel walsh weber whitlock winther yilmaz zander""".split()

_rng = random.Random(20261124)


def person(rng, domains):
    """One address as a person has it, at one of the domains."""
    g, f = rng.choice(GIVEN), rng.choice(FAMILY)
    shape = rng.random()
    if shape < 0.45:
        local = f"{g}.{f}"
    elif shape < 0.65:
        local = f"{g[0]}.{f}"
    elif shape < 0.8:
        local = f"{g}{f}{rng.randrange(10, 99)}"
    elif shape < 0.9:
        local = f"{g}_{f}"
    else:
        local = f"{f}{rng.randrange(1950, 2009)}"
    return f"{local}@{rng.choice(domains)}"


def people(n, domains, rng=_rng):
    """`n` different people."""
    found = {}
    while len(found) < n:
        found[person(rng, domains)] = True
    return list(found)


FREEMAIL = ["inboxly.example"] * 5 + ["mailnook.example"] * 2 + ["webpost.test"] * 3 + ["northnet.example"] * 2
BUSINESS = HOSTED_ELSEWHERE + ["ironpost.example", "kvarnby.example", "lakeside-clinic.example"]

# Log-in name -> what it is. `style` says how the mail program writes Message-IDs;
# `ips` are the account's usual addresses; `n` the messages of a full run.
ACCOUNTS = {
    "accounts@brightleaf.example": dict(ips=["100.72.14.23"], style="outlook", n=9),
    "orders@brightleaf.example": dict(ips=["100.72.14.23"], style="outlook", n=9),
    "h.whitcombe@brightleaf.example": dict(ips=["100.72.14.23", "100.88.131.7"], style="apple", n=6),
    "scanner@brightleaf.example": dict(ips=["100.72.14.23"], style="none", n=5),
    "deliveries@brightleaf.example": dict(ips=["100.88.131.40"], style="phone", n=5),
    "office@wrenfield.example": dict(ips=["100.70.201.5"], style="outlook", n=15),
    "headteacher@wrenfield.example": dict(ips=["100.70.201.5", "2001:db8:7a1:40::c3"], style="apple", n=7),
    "k.osei@wrenfield.example": dict(ips=["100.70.201.5"], style="thunderbird", n=5),
    "l.marchetti@wrenfield.example": dict(ips=["100.70.201.5", "100.95.17.66"], style="phone", n=6),
    "librarian@wrenfield.example": dict(ips=["100.70.201.5"], style="thunderbird", n=4),
    "bulletin@saltmarsh-sailing.example": dict(ips=["100.77.60.118"], style="bulk", n=0),
    "commodore@saltmarsh-sailing.example": dict(ips=["100.77.60.118", "100.93.4.180"], style="thunderbird", n=6),
    "t.eriksen@saltmarsh-sailing.example": dict(ips=["2001:db8:51:9::1f02"], style="thunderbird", n=5),
    "bookings@saltmarsh-sailing.example": dict(ips=["100.77.60.118"], style="web", n=10),
    "pia.lund@saltmarsh-sailing.example": dict(ips=["100.93.4.61"], style="phone", n=5),
    "a.lindqvist@kontor-lindqvist.example": dict(ips=["100.84.9.12", "100.95.88.3"], style="apple", n=8),
    "Ines.Holm@Kontor-Lindqvist.example": dict(ips=["100.84.9.12"], style="outlook", n=7),
    "faktura@kontor-lindqvist.example": dict(ips=["100.84.9.12"], style="script", n=0),
    "j.brandt@kontor-lindqvist.example": dict(ips=["100.84.9.12"], style="outlook", n=6),
    "reception@kontor-lindqvist.example": dict(ips=["100.84.9.12"], style="outlook", n=8),
    "hello@oakandivy.example": dict(ips=["100.79.33.150"], style="web", n=7),
    "m.dufour@oakandivy.example": dict(ips=["100.79.33.150", "2001:db8:51:22::77"], style="apple", n=6),
    "studio@oakandivy.example": dict(ips=["100.79.33.150"], style="thunderbird", n=6),
    "noreply@oakandivy.example": dict(ips=["100.64.2.10"], style="script", n=0),
    "p.nakamura@oakandivy.example": dict(ips=["100.91.70.9"], style="phone", n=5),
}
HIJACKED = "accounts@brightleaf.example"
BULLETIN = "bulletin@saltmarsh-sailing.example"
INVOICES = "faktura@kontor-lindqvist.example"
SHOP = "noreply@oakandivy.example"
OFFICE = "office@wrenfield.example"
OFFICE_SENDERS = [
    "office@wrenfield.example", "admissions@wrenfield.example",
    "lunches@wrenfield.example", "absence@wrenfield.example",
]

# What the filter variant is about: a smaller house.
FILTER_ACCOUNTS = [
    "accounts@brightleaf.example", "orders@brightleaf.example", "h.whitcombe@brightleaf.example",
    "office@wrenfield.example", "k.osei@wrenfield.example", "a.lindqvist@kontor-lindqvist.example",
    "Ines.Holm@Kontor-Lindqvist.example", "hello@oakandivy.example", "m.dufour@oakandivy.example",
]

# Nine machines of the hijacker, in seven /16 networks.
HIJACK_IPS = [
    "100.81.7.200", "100.101.33.7", "198.18.44.6", "100.117.250.14", "100.81.190.3",
    "100.66.12.130", "198.19.201.77", "100.124.8.91", "100.101.212.40",
]
# Password guessing that has nothing to do with it.
GUESSING_IPS = ["198.18.222.5", "100.109.73.18"]

# Reverse names; who is not here is `unknown` to Postfix.
REVERSE = {
    "100.72.14.23": "static-100-72-14-23.northnet.example",
    "100.70.201.5": "gw.wrenfield.example",
    "100.77.60.118": "host118.60-77.tidewave-fibre.example",
    "100.84.9.12": "mail.kontor-lindqvist.example",
    "100.79.33.150": "100-79-33-150.dsl.northnet.example",
    "100.64.2.10": "web3.oakandivy.example",
    "100.91.70.9": "cpe-9.mobile.tidewave-fibre.example",
    "100.81.7.200": "100-81-7-200.pool.farnet.test",
    "198.18.44.6": "vps-4406.cheaprack.test",
}
# A reverse name whose forward record points elsewhere: Postfix warns and says `unknown`.
REVERSE_LIE = {"100.124.8.91": "mail.kvarnby.example"}

ALIAS = "crew@saltmarsh-sailing.example"
ALIAS_TO = [
    "commodore@saltmarsh-sailing.example", "t.eriksen@saltmarsh-sailing.example",
    "thea.winther@inboxly.example",
]


def _contacts():
    out = {}
    for name in ACCOUNTS:
        domain = name.lower().split("@")[1]
        colleagues = [a.lower() for a in ACCOUNTS
                      if a.lower().endswith("@" + domain) and a != name
                      and a not in (SHOP, BULLETIN, "scanner@brightleaf.example")]
        out[name] = people(4, FREEMAIL) + people(4, BUSINESS) + colleagues[:2]
    return out


CONTACTS = _contacts()
SUBSCRIBERS = people(80, FREEMAIL + ["ironpost.example", "rosehip-bakery.example", "kvarnby.example"])
SHOP_CUSTOMERS = people(18, FREEMAIL)
INVOICED = people(12, BUSINESS)
CHOIR = people(30, FREEMAIL + HOSTED_ELSEWHERE[:3])

# Known addresses that do not take mail, and how they say so.
SPECIAL = {
    SUBSCRIBERS[17]: "unknown",
    SUBSCRIBERS[58]: "full",
    SHOP_CUSTOMERS[9]: "unknown",
}
KNOWN = set(ALIAS_TO) | set(SUBSCRIBERS) | set(SHOP_CUSTOMERS) | set(INVOICED) | set(CHOIR)
for _c in CONTACTS.values():
    KNOWN.update(_c)

_strangers = random.Random(7)
STRANGER_DOMAINS = (["inboxly.example"] * 12 + ["mailnook.example"] * 3 + ["webpost.test"] * 3
                    + ["northnet.example"] * 2 + ["ironpost.example"])
STRANGERS = [a for a in people(700, STRANGER_DOMAINS, _strangers) if a not in KNOWN]


def mailbox(address):
    """`ok`, `unknown` or `full`: what the receiver knows about an address."""
    address = address.lower()
    if address in SPECIAL:
        return SPECIAL[address]
    domain = address.rpartition("@")[2]
    if address in KNOWN or domain in CUSTOMERS:
        return "ok"
    if address in _EXTRA:
        return "ok"
    h = hashlib.sha256(address.encode("utf-8", "surrogateescape")).digest()[0] / 256
    if domain in ("slowpost.test",):
        return "ok"
    return "unknown" if h < 0.42 else "full" if h < 0.46 else "ok"


# Addresses used for single oddities.
UTF8_RCPT = "jörg.größe@inboxly.example"
UTF8_REFUSED_RCPT = "søren@mailnook.example"
QUOTED_RCPT = '"front desk"@hollowaytax.example'
TAGGED_RCPT = "liam.walsh+regatta=2026@inboxly.example"
TYPO_RCPT = "anna.keller@inbxoly.example"
DEAD_RCPT = "miller@oldmill.example"
NEVER_RCPT = "archive@slowpost.test"
_EXTRA = {UTF8_RCPT, UTF8_REFUSED_RCPT, QUOTED_RCPT, TAGGED_RCPT}


def account_of_sender():
    """Envelope sender (lower case) -> account (lower case)."""
    table = {name.lower(): name.lower() for name in ACCOUNTS}
    for sender in OFFICE_SENDERS:
        table[sender] = OFFICE
    return table
