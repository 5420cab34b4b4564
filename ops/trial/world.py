"""The provider of the trial: a submission host, HAProxy and four relays, all real, in a network of their own.

Everything of `README.md` that people copy is taken from there: the line of Postfix and the backend of HAProxy.
"""

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from outside import RECEIVERS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
SUBMISSION, BALANCER = "10.20.0.11", "10.20.0.5"
RELAYS = [(f"out-{n}", f"192.0.2.{n}") for n in range(1, 5)]
POLICY, AGENT, SASL, STATS = 10040, 10041, 10050, 10060
# Users and groups that every Debian has, so that none has to be made.
OWNER, DROP = ("backup", 34), ("irc", 39)


def readme(first):
    """The block of README.md, indented within a list, that begins with this."""
    lines = iter((ROOT / "README.md").read_text().splitlines())
    block = []
    for line in lines:
        if block and not line.startswith("      "):
            break
        if block or line.startswith("      " + first):
            block.append(line[6:])
    assert block, f"README.md has no `{first}`"
    return "\n".join(block) + "\n"


def run(*command, **more):
    """A command that has to succeed; gives what it prints."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, timeout=120, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def wait(what, is_so, limit_s=120):
    """Waits until something is so, and gives what it was."""
    until = time.monotonic() + limit_s
    while not (found := is_so()):
        if time.monotonic() > until:
            raise RuntimeError(f"not within {limit_s} s: {what}")
        time.sleep(0.05)
    return found


def listens(address, port):
    """Whether anybody takes connections there."""
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def network(addresses):
    """A loopback that has all of the trial's addresses, and no way out."""
    run("ip", "link", "set", "lo", "up")
    for address in addresses:
        run("ip", "address", "add", f"{address}/32", "dev", "lo")


def libraries(root):
    """Where an unpacked package's libraries are."""
    lib = root / "usr/lib"
    return ":".join(map(str, [*lib.glob("*-linux-gnu"), lib / "postfix"]))


class Postfix:
    """One instance on a host of its own name: its log is one host's."""

    def __init__(self, program, folder, name, address, settings, port=25):
        self.program, self.folder, self.name, self.address, self.port = program, folder, name, address, port
        self.log = folder / "maillog"
        self.layout()
        services = f"{address}:{port} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n"
        for service in (
            "pickup cleanup qmgr rewrite:trivial-rewrite bounce defer:bounce trace:bounce smtp error retry:error "
            "proxymap showq anvil scache flush local"
        ).split():
            short, _, command = service.partition(":")
            # As Postfix's own master.cf has it: of some there must be one, of some any number.
            limit = "1" if short in ("pickup", "qmgr", "anvil", "scache") else "-"
            if "bounce" in (short, command) or short in ("flush", "cleanup"):
                limit = "0"
            private = "n" if short in ("pickup", "cleanup", "qmgr", "showq", "flush") else "-"
            services += f"{short} unix {private} - n - {limit} {command or short}\n"
        (folder / "etc/master.cf").write_text(services)
        (folder / "etc/main.cf").write_text(
            f"compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n"
            f"command_directory = {program}/usr/sbin\ndaemon_directory = {program}/usr/lib/postfix/sbin\n"
            f"shlib_directory = {program}/usr/lib/postfix\nmeta_directory = {program}/etc/postfix\n"
            f"mail_owner = {OWNER[0]}\nsetgid_group = {DROP[0]}\ndefault_privs = nobody\n"
            f"maillog_file = {self.log}\nmaillog_file_prefixes = {folder}\nmyhostname = {name}.harbour.example\n"
            f"mydestination =\nlocal_recipient_maps =\nalias_maps =\ninet_protocols = ipv4\n"
            f"inet_interfaces = {address}\nsmtp_bind_address = {address}\nsmtpd_peername_lookup = no\n"
            "smtp_dns_support_level = disabled\nsmtp_host_lookup = native\n"
            # Who is greylisted comes again soon: a trial is short.
            "minimal_backoff_time = 5s\nmaximal_backoff_time = 15s\nqueue_run_delay = 4s\n"
            "import_environment = LD_LIBRARY_PATH MAIL_CONFIG MAIL_LOGTAG TZ=UTC LANG=C\n" + settings
        )

    def layout(self):
        """Folders as Postfix wants them."""
        self.folder.mkdir(mode=0o755)
        for name in ("etc", "queue", "data"):
            (self.folder / name).mkdir()
        os.chown(self.folder / "data", OWNER[1], -1)
        for name in "active bounce corrupt defer deferred flush hold incoming private saved trace".split():
            (self.folder / "queue" / name).mkdir()
            os.chown(self.folder / "queue" / name, OWNER[1], -1)
        for name, mode in (("public", 0o710), ("maildrop", 0o730), ("pid", 0o755)):
            path = self.folder / "queue" / name
            path.mkdir()
            os.chown(path, -1 if name == "pid" else OWNER[1], DROP[1])
            path.chmod(mode)

    def environment(self):
        return {"PATH": os.environ["PATH"], "TZ": "UTC", "LANG": "C", "LD_LIBRARY_PATH": libraries(self.program)}

    def start(self):
        """Starts it under its own host name, and waits until it listens."""
        master = [f"{self.program}/usr/lib/postfix/sbin/master", "-d", "-c", f"{self.folder}/etc"]
        with open(self.folder / "console", "wb") as console:
            subprocess.Popen(
                ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', self.name, *master],
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        try:
            wait(f"{self.name} listens", lambda: listens(self.address, self.port))
        except RuntimeError as why:
            said = self.log.read_text() if self.log.exists() else (self.folder / "console").read_text()
            raise RuntimeError(f"{why}; it says:\n{said[-2000:]}") from why

    def queue(self, sender):
        """How many of this sender's messages are in each of its queues."""
        command = [f"{self.program}/usr/sbin/postqueue", "-c", f"{self.folder}/etc", "-j"]
        listed = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False, timeout=30)
        counts = {}
        for line in listed.stdout.splitlines():
            message = json.loads(line)
            if sender is None or message["sender"] == sender:
                counts[message["queue_name"]] = counts.get(message["queue_name"], 0) + 1
        return counts


def submission(program, folder):
    """Where customers log in. Whom mail may come from, mailfuse says: the README's line."""
    line = readme("smtpd_recipient_restrictions")
    assert f"127.0.0.1:{POLICY}" in line
    return Postfix(
        program, folder / "submit-1", "submit-1", SUBMISSION,
        f"relayhost = [{BALANCER}]:25\nmynetworks =\n{readme('smtp_connection_cache_on_demand')}"
        f"smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:127.0.0.1:{SASL}\n"
        f"smtpd_relay_restrictions = permit_sasl_authenticated, reject\n{line}", 587,
    )  # fmt: skip


def relay(program, folder, name, address):
    """One that talks to the outside, from its own address."""
    ways = "".join(f"{domain} smtp:[{where}]:25\n" for domain, where in RECEIVERS.items())
    (folder / f"{name}.ways").write_text(ways)
    settings = "mynetworks = 10.20.0.0/24\nsmtpd_relay_restrictions = permit_mynetworks, reject\n"
    return Postfix(program, folder / name, name, address, f"{settings}transport_maps = texthash:{folder}/{name}.ways\n")


class Haproxy:
    """The balancer, with the README's backend."""

    def __init__(self, program, folder):
        self.socket = folder / "haproxy.socket"
        backend = readme("backend relays")
        assert f"agent-port {AGENT}" in backend and f"{RELAYS[1][1]}:25" in backend
        last = backend.rstrip().splitlines()[-1]
        for name, address in RELAYS[2:]:
            backend += last.replace(RELAYS[1][0], name).replace(RELAYS[1][1], address) + "\n"
        (folder / "haproxy.cfg").write_text(
            f"global\n    stats socket {self.socket} level admin\n"
            "defaults\n    timeout connect 5s\n    timeout client 330s\n    timeout server 330s\n"
            f"frontend in\n    mode tcp\n    bind {BALANCER}:25\n    default_backend relays\n"
            f"frontend watch\n    mode http\n    bind 127.0.0.1:{STATS}\n    stats enable\n    stats uri /\n    stats refresh 2s\n"
            f"{backend}    source {BALANCER}\n"
        )
        with open(folder / "haproxy.log", "wb") as log:
            self.process = subprocess.Popen(
                [f"{program}/usr/sbin/haproxy", "-db", "-f", f"{folder}/haproxy.cfg"],
                env={"LD_LIBRARY_PATH": libraries(program)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            wait("HAProxy listens", lambda: listens(BALANCER, 25))
        except RuntimeError as why:
            raise RuntimeError(f"{why}; it says:\n{(folder / 'haproxy.log').read_text()[-2000:]}") from why

    def states(self):
        """Each relay's state, such as UP or DRAIN, and how many connections it has had."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(str(self.socket))
            s.sendall(b"show stat\n")
            table = b""
            while more := s.recv(65536):
                table += more
        lines = [re.sub("^# ", "", line).split(",") for line in table.decode().splitlines()]
        columns = {name: n for n, name in enumerate(lines[0])}
        rows = [row for row in lines[1:] if row[0] == "relays" and row[1] not in ("BACKEND", "")]
        return {row[1]: (row[columns["status"]], int(row[columns["stot"]])) for row in rows}
