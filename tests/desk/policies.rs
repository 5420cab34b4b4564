//! What the directory says of whole customers, made into decisions and kept so.

use mailfuse::desk::book::Book;
use mailfuse::desk::feedback::ledger::Ledger;
use mailfuse::desk::feedback::record::{Decided, Kind};
use mailfuse::desk::feedback::wish::Wish;
use mailfuse::desk::policies::{BY, differences};
use mailfuse::directory::Directory;

const NOW: i64 = 1_790_000_000_000;
const DAY: i64 = 86_400_000;

fn directory(policies: &str) -> Directory {
    let entry = format!("{{\"v\":1,\"tenant\":\"Shop.example\",\"policy\":{policies}}}\n");
    Directory::read(entry.as_bytes()).unwrap()
}

/// Does what differs, and returns how much was decided and taken back.
fn follow(ledger: &mut Ledger, directory: &Directory, now_ms: i64) -> (usize, usize) {
    let found = differences(directory, ledger.decided(), now_ms);
    let counts = (found.new.len(), found.over.len());
    let back = found.over.into_iter().map(|decision| Wish::TakeBack { decision, note: None });
    for wish in back.chain(found.new.into_iter().map(Wish::Decide)) {
        let done = ledger.take(wish, BY, &mut Book::default(), now_ms).unwrap();
        assert!(!done.control.is_empty(), "the detectors are told");
    }
    counts
}

fn standing(ledger: &Ledger, now_ms: i64) -> Vec<&Decided> {
    let stands = |d: &&Decided| d.taken_back.is_none() && d.until.is_none_or(|until| until.0 > now_ms);
    let mut all: Vec<_> = ledger.decided().filter(stands).collect();
    all.sort_by_key(|d| d.n);
    all
}

#[test]
fn what_stands_is_what_the_directory_says() {
    let mut ledger = Ledger::default();
    let both = directory("{\"exempt\":3,\"stratum\":\"bulk\"}");
    assert_eq!(follow(&mut ledger, &both, NOW), (2, 0));
    let all = standing(&ledger, NOW);
    assert_eq!(all.iter().map(|d| (d.what, &*d.by)).collect::<Vec<_>>(), [(Kind::Exempt, BY), (Kind::Pin, BY)]);
    assert_eq!((all[0].factor, all[1].stratum.as_deref()), (Some(3.0), Some("bulk")));
    assert_eq!(follow(&mut ledger, &both, NOW + DAY), (0, 0), "it stands");

    let other = directory("{\"exempt\":4}");
    assert_eq!(follow(&mut ledger, &other, NOW + 2 * DAY), (1, 2));
    let all = standing(&ledger, NOW + 2 * DAY);
    assert_eq!((all.len(), all[0].factor), (1, Some(4.0)));

    // It goes on for as long as the directory says so, without a gap.
    let late = NOW + 340 * DAY;
    let ends = all[0].until.unwrap();
    assert_eq!(follow(&mut ledger, &other, late), (1, 0));
    assert_eq!(standing(&ledger, late)[1].from, ends);
    assert_eq!(follow(&mut ledger, &other, late + DAY), (0, 0));

    // What a person takes back stays so, until the directory says something else.
    for id in standing(&ledger, late).iter().map(|d| d.id.clone()).collect::<Vec<_>>() {
        let wish = Wish::TakeBack { decision: id, note: Some("not for them".to_owned()) };
        ledger.take(wish, "ann", &mut Book::default(), late + 2 * DAY).unwrap();
    }
    assert_eq!(follow(&mut ledger, &other, late + 3 * DAY), (0, 0));
    assert_eq!(follow(&mut ledger, &directory("{\"exempt\":5}"), late + 4 * DAY), (1, 0));
    assert_eq!(follow(&mut ledger, &Directory::default(), late + 5 * DAY), (0, 1), "it says nothing any more");
    assert_eq!(standing(&ledger, late + 5 * DAY).len(), 0);
}

#[test]
fn what_others_have_decided_is_left_alone() {
    let mut ledger = Ledger::default();
    let found = differences(&directory("{\"tolerate\":2}"), ledger.decided(), NOW);
    let wish = Wish::Decide(found.new[0].clone());
    ledger.take(wish, "ann", &mut Book::default(), NOW).unwrap();
    assert_eq!(follow(&mut ledger, &Directory::default(), NOW + DAY), (0, 0));
    assert_eq!(standing(&ledger, NOW + DAY).len(), 1);
}

#[test]
fn a_policy_that_none_can_be_is_refused_with_its_line() {
    for (policy, wanted) in [
        ("{\"exempt\":1}", "`policy` must have `exempt` above 1, at most 10"),
        ("{\"exempt\":11}", "`exempt`"),
        ("{\"tolerate\":0}", "`tolerate`"),
        ("{\"stratum\":\"new\"}", "`stratum`"),
        ("{\"exemt\":2}", "unknown field `exemt`"),
    ] {
        let entry = format!("\n{{\"v\":1,\"tenant\":\"a\",\"policy\":{policy}}}\n");
        let refused = Directory::read(entry.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("line 2") && refused.contains(wanted), "{refused}");
    }
}
