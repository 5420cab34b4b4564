//! A real Postfix, with the line of `main.cf` that the README has.

#![allow(dead_code, reason = "shared by tests that each need a part")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use tempfile::TempDir;

use super::{Guard, Program, Talk, free_port, lets_everybody_in, readme, wait_until};

/// Users and groups that every Debian has, so that none has to be made.
const OWNER: (&str, u32) = ("backup", 34);
const DROP: (&str, u32) = ("irc", 39);

/// A Postfix that takes mail of whoever logs in, and has nobody to deliver it to.
pub struct Postfix {
    pub program: Program,
    pub folder: TempDir,
    pub port: u16,
    _master: Guard,
}

impl Postfix {
    /// With the README's line, for a policy service at this port.
    pub fn start(program: Program, policy: u16) -> Self {
        // Sockets have short names.
        let folder = tempfile::Builder::new().prefix("mf-pf-").tempdir_in("/tmp").unwrap();
        let (port, sasl) = (free_port(), lets_everybody_in());
        let at = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["etc", "queue", "data"] {
            fs::create_dir(at(name)).unwrap();
        }
        chown(at("data"), Some(OWNER.1), None).unwrap();
        for name in "active bounce corrupt defer deferred flush hold incoming private saved trace".split(' ') {
            fs::create_dir(at("queue").join(name)).unwrap();
            chown(at("queue").join(name), Some(OWNER.1), None).unwrap();
        }
        for (name, mode) in [("public", 0o710), ("maildrop", 0o730), ("pid", 0o755)] {
            fs::create_dir(at("queue").join(name)).unwrap();
            chown(at("queue").join(name), (name != "pid").then_some(OWNER.1), Some(DROP.1)).unwrap();
            fs::set_permissions(at("queue").join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let (root, here) = (program.0.display(), folder.path().display());
        let restrictions = readme("smtpd_recipient_restrictions");
        assert!(restrictions.contains("127.0.0.1:10040"));
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {here}/queue\ndata_directory = {here}/data\n\
             command_directory = {root}/usr/sbin\ndaemon_directory = {root}/usr/lib/postfix/sbin\n\
             shlib_directory = {root}/usr/lib/postfix\nmeta_directory = {root}/etc/postfix\nmail_owner = {}\n\
             setgid_group = {}\ndefault_privs = nobody\nmaillog_file = {here}/maillog\nmaillog_file_prefixes = {here}\n\
             myhostname = mx.example\nmydestination =\nlocal_recipient_maps =\nalias_maps =\nmynetworks =\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmaximal_backoff_time = 1h\n\
             relayhost = [127.0.0.1]:{}\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n\
             smtpd_sasl_path = inet:{sasl}\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
             import_environment = LD_LIBRARY_PATH MAIL_CONFIG MAIL_LOGTAG LANG=C\n{}",
            OWNER.0,
            DROP.0,
            free_port(),
            restrictions.replace("10040", &policy.to_string()),
        );
        fs::write(at("etc/main.cf"), main).unwrap();
        let unix = "pickup cleanup qmgr rewrite:trivial-rewrite bounce defer:bounce trace:bounce smtp error retry:error \
                    proxymap showq anvil scache flush local";
        let mut services = format!("{port} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n");
        for service in unix.split(' ') {
            let (name, command) = service.split_once(':').unwrap_or((service, service));
            // As Postfix's own master.cf has it: of some there must be one, of some any number.
            let limit = match name {
                "pickup" | "qmgr" | "anvil" | "scache" => "1",
                "bounce" | "defer" | "trace" | "flush" | "cleanup" => "0",
                _ => "-",
            };
            let is_private = if ["pickup", "cleanup", "qmgr", "showq", "flush"].contains(&name) { "n" } else { "-" };
            services += &format!("{name} unix {is_private} - n - {limit} {command}\n");
        }
        fs::write(at("etc/master.cf"), services).unwrap();
        let mut master = program.command("usr/lib/postfix/sbin/master");
        master.args(["-d", "-c"]).arg(at("etc")).stdout(Stdio::null()).stderr(Stdio::null());
        let master = Guard::start(&mut master);
        let postfix = Self { program, folder, port, _master: master };
        wait_until("Postfix listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        postfix
    }

    /// What a recipient of this account's message is answered; one that is taken is sent.
    pub fn send(&self, account: &str, recipient: &str) -> String {
        let mut smtp = Talk::to(([127, 0, 0, 1], self.port));
        let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{account}\0secret"));
        assert!(smtp.say("").starts_with("220"), "{}", self.log());
        smtp.say("EHLO client.example");
        let entered = smtp.say(&format!("AUTH PLAIN {plain}"));
        assert!(entered.starts_with("235"), "{entered}\n{}", self.log());
        smtp.say("MAIL FROM:<somebody@x.example>");
        let answer = smtp.say(&format!("RCPT TO:<{recipient}>"));
        if answer.starts_with("250") {
            smtp.say("DATA");
            let taken = smtp.say("Subject: hello\r\n\r\nhello\r\n.");
            assert!(taken.starts_with("250"), "{taken}\n{}", self.log());
        }
        smtp.say("QUIT");
        answer
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("maillog")).unwrap_or_default()
    }

    /// The messages of a queue, which may have folders.
    pub fn queue(&self, name: &str) -> Vec<PathBuf> {
        let list = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path());
        let (mut files, folders): (Vec<_>, Vec<_>) =
            list(self.folder.path().join("queue").join(name)).partition(|p| p.is_file());
        files.extend(folders.into_iter().flat_map(list).filter(|p| p.is_file()));
        files
    }

    /// One of our scripts, or another program, with this Postfix's environment.
    pub fn environment(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.program.libraries());
        command
    }

    pub fn etc(&self) -> PathBuf {
        self.folder.path().join("etc")
    }
}
