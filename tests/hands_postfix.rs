//! A real Postfix before our policy service, with the line of `main.cf` that the README has: stopped and throttled accounts,
//! every action, and what happens while nobody answers. The hook that holds what is queued, and the list for `postmap`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod hands_support;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use hands_support::{Guard, Program, Talk, board, free_port, lets_everybody_in, measure, readme, wait_until};
use mailfuse::relays::hands::settings::{Action, FileList, Form, Policy, What};
use mailfuse::relays::measure::Kind;
use mailfuse::relays::{Board, Hands, Settings};
use mailfuse::telemetry::Metrics;
use tempfile::TempDir;

/// Users and groups that every Debian has, so that none has to be made.
const OWNER: (&str, u32) = ("backup", 34);
const DROP: (&str, u32) = ("irc", 39);

struct Postfix {
    program: Program,
    folder: TempDir,
    port: u16,
    _master: Guard,
}

impl Postfix {
    /// With the README's line, for a policy service at this port.
    fn start(program: Program, policy: u16) -> Self {
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
    fn send(&self, account: &str, recipient: &str) -> String {
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

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("maillog")).unwrap_or_default()
    }

    fn queue(&self, name: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.folder.path().join("queue").join(name)).unwrap();
        files.map(|f| f.unwrap().path()).filter(|p| p.is_file()).collect()
    }
}

fn hands(policy: &Policy, board: &Arc<Board>) -> Hands {
    let settings = Settings { policy: policy.clone(), ..Settings::default() };
    Hands::with_board(&settings, Arc::clone(board), &Arc::new(Metrics::new())).unwrap()
}

#[test]
fn postfix_stops_and_throttles_accounts_and_goes_on_while_nobody_answers() {
    let Some(program) = Program::fetch("postfix") else { return };
    let policy = Policy {
        listen: format!("127.0.0.1:{}", free_port()),
        text: "{account} is stopped, case {incident}: ask {contact}".to_owned(),
        contact: "abuse@x.example".to_owned(),
        default_domain: "x.example".to_owned(),
        throttle_recipients: 2,
        ..Policy::default()
    };
    let unread = Arc::<Board>::default();
    unread.change(|standing| standing.take(measure("m-1", Kind::Stop, "ann@x.example")));
    let starting = hands(&policy, &unread);
    let port = starting.policy_address().unwrap().port();
    let postfix = Postfix::start(program, port);

    // Not known yet what is in force: mail goes through.
    assert!(postfix.send("ann@x.example", "r@y.example").starts_with("250"), "{}", postfix.log());
    assert!(postfix.log().contains("problem talking to server") || postfix.log().contains("Connection refused"));

    unread.set_read();
    let stopped =
        "450 4.7.1 <r@y.example>: Recipient address rejected: ann@x.example is stopped, case i-7: ask abuse@x.example";
    wait_until("it is served", || postfix.send("Ann@X.example", "r@y.example") == stopped);
    assert_eq!(postfix.send("ann", "r@y.example"), stopped, "a SASL name without a domain");
    assert!(postfix.send("bob@x.example", "r@y.example").starts_with("250"));
    let trying = starting.trying();
    assert_eq!((trying.len(), &*trying[0].account, &*trying[0].client), (1, "ann@x.example", "127.0.0.1"));
    let confirmed: Vec<_> = starting.confirmations().try_iter().map(|c| c.measure).collect();
    assert_eq!(confirmed, ["m-1"]);

    unread.change(|standing| {
        standing.forget("m-1");
        standing.take(measure("m-2", Kind::Throttle, "tim@x.example"));
    });
    assert!(postfix.send("ann@x.example", "r@y.example").starts_with("250"), "released");
    let answers = ["a", "b", "c", "a"].map(|r| postfix.send("tim@x.example", &format!("{r}@y.example")));
    let codes: Vec<&str> = answers.iter().map(|a| &a[..3]).collect();
    assert_eq!(codes, ["250", "250", "450", "250"], "{answers:?}");
    starting.stop();
    assert!(postfix.send("ann@x.example", "r@y.example").starts_with("250"), "nobody answers: mail goes through");

    let all = board([measure("m-3", Kind::Stop, "ann@x.example")]);
    let again = |action, filter: &str| hands(&Policy { action, filter: filter.to_owned(), ..policy.clone() }, &all);
    let rejecting = again(Action::Reject, "");
    let refused =
        "554 5.7.1 <r@y.example>: Recipient address rejected: ann@x.example is stopped, case i-7: ask abuse@x.example";
    wait_until("it is refused", || postfix.send("ann@x.example", "r@y.example") == refused);
    rejecting.stop();

    assert!(postfix.queue("hold").is_empty());
    let holding = again(Action::Hold, "");
    wait_until("it is held", || {
        assert!(postfix.send("ann@x.example", "r@y.example").starts_with("250"));
        !postfix.queue("hold").is_empty()
    });
    holding.stop();

    let sink = free_port();
    let dump = postfix.folder.path().join("sink");
    fs::create_dir(&dump).unwrap();
    let mut command = postfix.program.command("usr/sbin/smtp-sink");
    command.args(["-u", "root", "-d"]).arg(dump.join("m.")).args([&format!("127.0.0.1:{sink}"), "10"]);
    let _sink = Guard::start(&mut command);
    let filtering = again(Action::Filter, &format!("smtp:[127.0.0.1]:{sink}"));
    wait_until("it takes another way", || {
        assert!(postfix.send("ann@x.example", "r@y.example").starts_with("250"));
        fs::read_dir(&dump).unwrap().count() > 0
    });
    filtering.stop();
}

#[test]
fn what_a_stopped_account_has_queued_is_held_and_a_list_reaches_postmap() {
    let Some(program) = Program::fetch("postfix") else { return };
    let postfix = Postfix::start(program, free_port());
    for account in ["ann@x.example", "bob@x.example", "ann@x.example"] {
        assert!(postfix.send(account, "r@y.example").starts_with("250"));
    }
    // There is nobody to deliver them to.
    wait_until("they are deferred", || {
        let deferred = postfix.folder.path().join("queue/deferred");
        let files = fs::read_dir(deferred).unwrap().flatten();
        files.flat_map(|f| fs::read_dir(f.path()).into_iter().flatten()).count() == 3
    });
    let etc = postfix.folder.path().join("etc");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/relays/postfix-hold");
    let run = |verb: &str, account: &str| {
        let line = serde_json::json!({ "v": 1, "verb": verb, "idempotency_key": "m-1/stop", "account": account });
        let mut hook = postfix.program.command("usr/sbin/postqueue");
        // The same environment, another program.
        let environment: Vec<_> =
            hook.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap_or_default().to_owned())).collect();
        hook = std::process::Command::new(script);
        hook.arg("--config").arg(&etc).arg("--sbin").arg(postfix.program.0.join("usr/sbin"));
        let child = hook.envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        use std::io::Write as _;
        writeln!(child.stdin.as_ref().unwrap(), "{line}").unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(run("release", "ann@x.example"), "");
    assert_eq!(run("stop", "ann@x.example"), "held 2 messages of ann@x.example\n");
    assert_eq!(postfix.queue("hold").len(), 2);
    assert_eq!(run("stop", "ann@x.example"), "held 0 messages of ann@x.example\n", "again: nothing is left to hold");

    let path = etc.join("stopped");
    let postmap = postfix.program.0.join("usr/sbin/postmap").display().to_string();
    let environment = format!("LD_LIBRARY_PATH={}", postfix.program.libraries());
    let reload =
        ["/usr/bin/env", &environment, &postmap, "-c", &etc.display().to_string(), &path.display().to_string()];
    let reload = reload.map(str::to_owned).into();
    let list = FileList {
        path: path.clone(),
        what: What::Stopped,
        form: Form::Postfix,
        reload,
        timeout_s: 60,
        ..FileList::default()
    };
    let settings = Settings { file: vec![list], ..Settings::default() };
    let board = board([measure("m-1", Kind::Stop, "ann@x.example")]);
    let hands = Hands::with_board(&settings, Arc::clone(&board), &Arc::new(Metrics::new())).unwrap();
    let ask = |account: &str| {
        let mut query = postfix.program.command("usr/sbin/postmap");
        let out = query.arg("-c").arg(&etc).args(["-q", account]).arg(format!("hash:{}", path.display())).output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    let stopped = "DEFER_IF_PERMIT 4.7.1 ann@x.example may not send mail";
    wait_until("postmap has it", || ask("ann@x.example").starts_with(stopped));
    assert_eq!(ask("bob@x.example"), "");
    board.change(|standing| standing.forget("m-1"));
    wait_until("postmap has it no more", || ask("ann@x.example").is_empty());
    hands.stop();
}
