//! The recipes of `ops/relays` with the programs that they are for: Exim defers what a stopped account sends, from the list that
//! mailfuse keeps, and freezes what `mailfuse queue-ids` lists; Dovecot ends its sessions.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod hands_support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use hands_support::{Guard, Program, Talk, board, free_port, measure, wait_until};
use mailfuse::relays::hands::settings::{FileList, Form, What};
use mailfuse::relays::measure::Kind;
use mailfuse::relays::{Hands, Settings};
use mailfuse::telemetry::Metrics;

const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/relays");
/// The user and group `backup`, whom every Debian has.
const OWNER: u32 = 34;

/// A command that finds the program as if it were installed, and these files over those of /etc; nobody else sees either.
fn installed(program: &Program, etc: &Path, command: &[&str]) -> Command {
    let script = "set -e; mount -t overlay overlay -o lowerdir=\"$0\":/etc /etc; \
                  mount -t overlay overlay -o lowerdir=\"$1\"/usr:/usr /usr; shift; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", script]).arg(etc).arg(&program.0).args(command);
    unshare
}

fn folder(prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(folder.path().join("etc")).unwrap();
    folder
}

/// What Exim says to a session in which this account writes to somebody.
fn exim(program: &Program, at: &Path, account: &str) -> String {
    let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{account}\0secret"));
    let session = format!(
        "EHLO client.example\r\nAUTH PLAIN {plain}\r\nMAIL FROM:<ann@x.example>\r\nRCPT TO:<r@y.example>\r\nQUIT\r\n"
    );
    let conf = at.join("exim.conf");
    let mut command = installed(program, &at.join("etc"), &["exim4", "-C", conf.to_str().unwrap(), "-bh", "192.0.2.9"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare");
    child.stdin.take().unwrap().write_all(session.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("235 Authentication succeeded"), "{said}{}", String::from_utf8_lossy(&out.stderr));
    said
}

/// A folder with what Exim needs beside its configuration.
fn exim_folder() -> tempfile::TempDir {
    let folder = folder("mf-exim-");
    let at = folder.path();
    // The user that Debian's Exim runs as.
    for (name, line) in [("passwd", "Debian-exim:x:34:34::/tmp:/bin/false\n"), ("group", "Debian-exim:x:34:\n")] {
        let all = fs::read_to_string(Path::new("/etc").join(name)).unwrap();
        fs::write(at.join("etc").join(name), all + line).unwrap();
    }
    fs::create_dir(at.join("spool")).unwrap();
    chown(at.join("spool"), Some(OWNER), Some(OWNER)).unwrap();
    folder
}

#[test]
fn exim_defers_what_a_stopped_account_sends() {
    let Some(program) = Program::fetch("exim") else { return };
    let folder = exim_folder();
    let at = folder.path();
    let recipe = fs::read_to_string(Path::new(RECIPES).join("exim-acl")).unwrap();
    let list = at.join("stopped");
    assert!(recipe.contains("/var/lib/mailfuse/stopped"));
    let here = at.display();
    let conf = format!(
        "primary_hostname = mx.example\nspool_directory = {here}/spool\nlog_file_path = {here}/spool/%slog\n\
         keep_environment =\nacl_smtp_rcpt = rcpt\nbegin acl\nrcpt:\n{}\n  accept\nbegin authenticators\nplain:\n  \
         driver = plaintext\n  public_name = PLAIN\n  server_condition = yes\n  server_set_id = $auth2\n",
        recipe.replace("/var/lib/mailfuse/stopped", list.to_str().unwrap())
    );
    fs::write(at.join("exim.conf"), conf).unwrap();
    assert!(exim(&program, at, "ann@x.example").contains("250 Accepted"), "there is no list yet");

    let file = FileList { path: list.clone(), what: What::Stopped, form: Form::Exim, ..FileList::default() };
    let settings = Settings { file: vec![file], ..Settings::default() };
    let stopped = board([measure("m-1", Kind::Stop, "ann@x.example")]);
    let hands = Hands::with_board(&settings, stopped, &Arc::new(Metrics::new())).unwrap();
    wait_until("the list is written", || list.exists());
    hands.stop();
    let said = exim(&program, at, "Ann@X.example");
    assert!(said.contains("451-ann@x.example may not send mail") && said.contains("case i-7"), "{said}");
    assert!(exim(&program, at, "bob@x.example").contains("250 Accepted"), "nobody else");
}

/// The words behind the pipe of the command's help, which are typed as they stand there.
fn freezes() -> &'static str {
    let help = include_str!("../src/cli/look_back.rs");
    let line = help.lines().find(|l| l.contains("queue-ids") && l.contains("exim -Mf")).unwrap();
    line.split_once(" | ").unwrap().1.trim_end_matches([')', ']', '"'])
}

#[test]
fn exim_freezes_what_queue_ids_lists_and_nothing_else() {
    let Some(program) = Program::fetch("exim") else { return };
    let folder = exim_folder();
    let (at, here) = (folder.path(), folder.path().display());
    // Nothing leaves the queue: there is a router that defers for ever.
    let conf = format!(
        "primary_hostname = mx.example\nspool_directory = {here}/spool\nlog_file_path = {here}/spool/%slog\n\
         keep_environment =\nqueue_only = true\nbegin routers\nlater:\n  driver = redirect\n  data = :defer: later\n  \
         allow_defer\n"
    );
    fs::write(at.join("exim.conf"), conf).unwrap();
    let conf = at.join("exim.conf").display().to_string();
    let run = |script: &str, input: &str| {
        let mut child = installed(&program, &at.join("etc"), &["sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&out.stderr));
        said
    };
    let exim = format!("exim4 -C {conf}");
    for n in 0..3 {
        run(&format!("{exim} -odq -f ann@x.example r{n}@y.example"), "Subject: one of three\n\nSo.\n");
    }
    // Age, size, id and sender of each message, and whether it is frozen.
    let queue = || -> Vec<(String, bool)> {
        let shown = run(&format!("{exim} -bp"), "");
        let heads = shown.lines().filter(|l| l.contains("<ann@x.example>"));
        heads.map(|l| (l.split_whitespace().nth(2).unwrap().to_owned(), l.contains("*** frozen ***"))).collect()
    };
    let waiting = queue();
    assert!(waiting.len() == 3 && waiting.iter().all(|(_, is_frozen)| !is_frozen), "{waiting:?}");
    // As `mailfuse queue-ids` prints them: an id a line.
    let ids = [&*waiting[0].0, &*waiting[2].0];
    let freeze = freezes().replace("exim ", &format!("{exim} "));
    assert_eq!(freeze, format!("xargs -r {exim} -Mf"));
    // One is gone from the queue by now: Exim says so, xargs ends with 123, and the others are frozen all the same.
    let gone = "1rXXXX-000000-00";
    run(&format!("{freeze} || [ $? -eq 123 ]"), &format!("{gone}\n{}\n", ids.join("\n")));
    let after = queue();
    assert_eq!(after.len(), 3);
    for (id, is_frozen) in &after {
        assert_eq!(*is_frozen, ids.contains(&&**id), "the other one waits as before: {after:?}");
    }
    run(&freeze, "");
    assert_eq!(queue().into_iter().filter(|(_, is_frozen)| *is_frozen).count(), 2, "of nothing it freezes nothing");
}

#[test]
fn dovecot_ends_the_sessions_of_a_stopped_account() {
    let Some(program) = Program::fetch("dovecot") else { return };
    let folder = folder("mf-dove-");
    let (at, port) = (folder.path(), free_port());
    for name in ["etc/dovecot", "run", "mail"] {
        fs::create_dir(at.join(name)).unwrap();
    }
    chown(at.join("mail"), Some(OWNER), Some(OWNER)).unwrap();
    let here = at.display();
    let conf = format!(
        "protocols = imap\nbase_dir = {here}/run\nstate_dir = {here}/run\nlog_path = {here}/log\nlisten = 127.0.0.1\n\
         default_internal_user = backup\ndefault_internal_group = backup\ndefault_login_user = irc\nssl = no\n\
         disable_plaintext_auth = no\nmail_location = maildir:{here}/mail/%u\nfirst_valid_uid = 1\n\
         service imap-login {{\n  chroot =\n  inet_listener imap {{\n    port = {port}\n  }}\n  \
         inet_listener imaps {{\n    port = 0\n  }}\n}}\nservice anvil {{\n  chroot =\n}}\n\
         passdb {{\n  driver = static\n  args = password=secret\n}}\n\
         userdb {{\n  driver = static\n  args = uid=backup gid=backup home={here}/mail\n}}\n"
    );
    fs::write(at.join("etc/dovecot/dovecot.conf"), conf).unwrap();
    let etc = at.join("etc");
    let log = || fs::read_to_string(at.join("log")).unwrap_or_default();
    let mut master = installed(&program, &etc, &["dovecot", "-F"]);
    let _master = Guard::start(master.stdin(Stdio::null()).stdout(Stdio::null()));
    wait_until("Dovecot listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let login = |account: &str| {
        let mut imap = Talk::to(([127, 0, 0, 1], port));
        assert!(imap.say("").starts_with("* OK"), "{}", log());
        let entered = imap.say(&format!("a LOGIN {account} secret"));
        assert!(entered.starts_with("a OK"), "{entered}\n{}", log());
        imap
    };
    let (mut ann, mut bob) = (login("ann@x.example"), login("bob@x.example"));
    let recipe = format!("{RECIPES}/dovecot-kick");
    let told = |verb: &str, account: &str| {
        let mut hook = installed(&program, &etc, &[&recipe]);
        let mut hook = hook.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let line = format!("{}\n", serde_json::json!({ "verb": verb, "account": account }));
        hook.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
        let out = hook.wait_with_output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    };
    assert_eq!(told("release", "ann@x.example"), (Some(0), String::new()));
    let (code, said) = told("stop", "ann@x.example");
    assert!(code == Some(0) && said.contains("ann@x.example"), "{code:?} {said}");
    assert!(ann.say("b NOOP").starts_with("* BYE"), "{}", log());
    assert!(bob.say("b NOOP").starts_with("b OK"), "nobody else");
    assert_eq!(told("stop", "carl@x.example").0, Some(0), "who has no session is none to be tried again");
}
