//! A real Postfix before our policy service, with the line of `main.cf` that the README has: stopped and throttled accounts,
//! every action, and what happens while nobody answers. The hook that holds what is queued, and the list for `postmap`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod hands_support;

use std::fs;
use std::process::Stdio;
use std::sync::Arc;

use hands_support::postfix::Postfix;
use hands_support::{Guard, Program, board, free_port, measure, wait_until};
use mailfuse::relays::hands::settings::{Action, FileList, Form, Policy, What};
use mailfuse::relays::measure::Kind;
use mailfuse::relays::{Board, Hands, Settings};
use mailfuse::telemetry::Metrics;

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
    // Its log is written by a process of its own.
    wait_until("it says why", || {
        ["problem talking to server", "Connection refused"].iter().any(|words| postfix.log().contains(words))
    });

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
    for account in ["Ann@X.Example", "bob@x.example", "ann"] {
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
    let run = |verb: &str, account: &str, more: &[&str]| {
        let line = serde_json::json!({ "v": 1, "verb": verb, "idempotency_key": "m-1/stop", "account": account });
        let mut hook = postfix.program.command("usr/sbin/postqueue");
        // The same environment, another program.
        let environment: Vec<_> =
            hook.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap_or_default().to_owned())).collect();
        hook = std::process::Command::new(script);
        hook.arg("--config").arg(&etc).arg("--sbin").arg(postfix.program.0.join("usr/sbin")).args(more);
        let child = hook.envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        use std::io::Write as _;
        writeln!(child.stdin.as_ref().unwrap(), "{line}").unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(run("release", "ann@x.example", &[]), "");
    assert_eq!(
        run("stop", "ann@x.example", &["--default-domain", "y.example"]),
        "held 1 messages of ann@x.example\n",
        "whatever the case; the login without a domain is another's"
    );
    assert_eq!(
        run("stop", "ann@x.example", &[]),
        "nothing held: of the 2 messages that wait here none was sent by a login of ann@x.example; a login without its \
         domain is found with --default-domain\n"
    );
    assert_eq!(postfix.queue("hold").len(), 1);
    let with = ["--default-domain", "X.example"];
    assert_eq!(run("stop", "ann@x.example", &with), "held 1 messages of ann@x.example\n", "a login without a domain");
    assert_eq!(postfix.queue("hold").len(), 2);
    assert_eq!(
        run("stop", "ann@x.example", &with),
        "nothing held: of the 1 messages that wait here none was sent by a login of ann@x.example\n",
        "again: nothing is left to hold"
    );

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
