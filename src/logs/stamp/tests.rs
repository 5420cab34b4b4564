use super::*;

/// What the stamps of one file's lines come to, in UTC; `-` where there is none.
fn read(options: StampOptions<'_>, lines: &[&str]) -> Vec<String> {
    let mut stamper = Stamper::new(options);
    let text = |line: &&str| match stamper.stamp(line.as_bytes()) {
        Some((ts, at)) => {
            assert!(line[at..].starts_with("host"), "{line}: the host does not begin at {at}");
            ts.to_string()
        }
        None => "-".to_owned(),
    };
    lines.iter().map(text).collect()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn given(year: i16) -> StampOptions<'static> {
    StampOptions { year: Some(year), ..StampOptions::default() }
}

fn named(name: &str) -> StampOptions<'_> {
    StampOptions { file_name: Some(name), ..StampOptions::default() }
}

fn modified(time: &str) -> StampOptions<'static> {
    StampOptions { modified: Some(Timestamp::parse(time).unwrap()), ..StampOptions::default() }
}

#[test]
fn rfc3164() {
    let lines = [
        "Jul 10 10:09:03 host postfix",
        "Jul  1 00:00:00 host",
        "<22>Jul 10 10:09:03 host",
        "Jul 10 10:09:60 host",
        "Jul 32 10:09:03 host",
        "Jul 10 25:09:03 host",
        "jul 10 10:09:03 host",
        "Jul 10 10:09:03host",
        "Jul 10 10:09",
        "<2222>Jul 10 10:09:03 host",
        "",
        "Feb 30 10:09:03 host",
    ];
    let expected = [
        "2012-07-10T10:09:03.000Z",
        "2012-07-01T00:00:00.000Z",
        "2012-07-10T10:09:03.000Z",
        "2012-07-10T10:10:00.000Z",
        "-",
        "-",
        "-",
        "-",
        "-",
        "-",
        "-",
        "-",
    ];
    assert_eq!(read(given(2012), &lines), expected);
}

#[test]
fn iso_forms() {
    let lines = [
        "2024-01-02T03:04:05.123456+01:00 host",
        "2024-01-02T03:04:05Z host",
        "2024-01-02T03:04:05-0530 host",
        "2024-01-02T03:04:05.9 host",
        "2024-01-02 03:04:05,25 host",
        "<22>2024-01-02T03:04:05+02 host",
        "2024-13-02T03:04:05Z host",
        "2024-01-02T03:04:05*Z host",
        "2024-01-02T03:04 host",
    ];
    let expected = [
        "2024-01-02T02:04:05.123Z",
        "2024-01-02T03:04:05.000Z",
        "2024-01-02T08:34:05.000Z",
        "2024-01-02T08:04:05.900Z",
        "2024-01-02T08:04:05.250Z",
        "2024-01-02T01:04:05.000Z",
        "-",
        "-",
        "-",
    ];
    let options = StampOptions { zone: zone("America/New_York"), ..StampOptions::default() };
    assert_eq!(read(options, &lines), expected);
}

#[test]
fn the_year_moves_on_once_however_the_lines_around_midnight_are_mixed() {
    let lines = [
        "Dec 31 23:59:58 host",
        "Jan  1 00:00:00 host",
        "Dec 31 23:59:59 host",
        "Jan  1 00:00:01 host",
        "Dec 31 23:59:59 host",
        "Jan  1 00:00:02 host",
        "Feb  1 00:00:02 host",
        "Dec 31 23:59:59 host",
        "Feb  1 00:00:03 host",
    ];
    let years: Vec<_> = read(given(2012), &lines).iter().map(|t| t[..4].to_owned()).collect();
    // The last but one is too far from everything to be disorder, and does not move the year.
    assert_eq!(years, ["2012", "2013", "2012", "2013", "2012", "2013", "2013", "2013", "2013"]);
}

#[test]
fn one_line_of_an_unset_clock_does_not_move_the_year() {
    let lines = ["Jul 10 10:00:00 host", "Jan  1 00:00:04 host", "Jul 10 10:00:01 host"];
    assert_eq!(read(given(2012), &lines)[2], "2012-07-10T10:00:01.000Z");
}

#[test]
fn an_anchor_is_the_end_of_the_log() {
    let check = |options: StampOptions<'_>, first: &str, expected: Assumed| {
        let mut stamper = Stamper::new(options);
        assert_eq!(stamper.assumed(), None);
        stamper.stamp(first.as_bytes()).unwrap();
        assert_eq!(stamper.assumed(), Some(expected), "{first}");
    };
    let date = |year, month, day| NameDate { year, month, day };
    check(modified("2013-01-02T06:25:01Z"), "Dec 26 06:25:01 host", Assumed::Modified(2012));
    check(modified("2013-01-02T06:25:01Z"), "Jan  1 06:25:01 host", Assumed::Modified(2013));
    // The log's clock is 12 h ahead of the zone that the caller gave.
    check(modified("2012-12-31T14:00:00Z"), "Jan  1 01:00:00 host", Assumed::Modified(2013));
    check(modified("2015-03-01T00:00:00Z"), "Feb 29 01:00:00 host", Assumed::Modified(2012));
    let new_year = date(2013, Some(1), Some(1));
    check(named("/var/log/maillog-20130101.gz"), "Dec 25 03:10:00 host", Assumed::FileName(2012, new_year));
    check(named("maillog-20130101"), "Jan  1 03:10:00 host", Assumed::FileName(2013, new_year));
    let eve = date(2012, Some(12), Some(31));
    check(named("mail-2012-12-31.log"), "Dec 31 00:00:00 host", Assumed::FileName(2012, eve));
    check(named("mail-2012-12-31.log"), "Jan  1 00:00:10 host", Assumed::FileName(2013, eve));
    check(named("mail.2012.log"), "Jan  1 00:00:10 host", Assumed::FileName(2012, date(2012, None, None)));
    let both = StampOptions { year: Some(2001), ..named("mail-2012-07-10.log") };
    check(both, "Jul 10 00:00:00 host", Assumed::Given(2001));
    let name_first = StampOptions { file_name: Some("maillog-20120711"), ..modified("2020-01-01T00:00:00Z") };
    check(name_first, "Jul 10 00:00:00 host", Assumed::FileName(2012, date(2012, Some(7), Some(11))));
    check(StampOptions::default(), "Feb 29 00:00:00 host", Assumed::Nothing(2000));
}

#[test]
fn dates_in_names() {
    let check = |name: &str, expected: Option<(i16, Option<i8>, Option<i8>)>| {
        let found = NameDate::find(name).map(|d| (d.year, d.month, d.day));
        assert_eq!(found, expected, "{name}");
    };
    check("mail-2012-07-10.log", Some((2012, Some(7), Some(10))));
    check("jino-2012-07-10.pseudo.maillog.gz", Some((2012, Some(7), Some(10))));
    check("maillog.20120710", Some((2012, Some(7), Some(10))));
    check("maillog-20120711.gz", Some((2012, Some(7), Some(11))));
    check("maillog-20120711063000.gz", Some((2012, Some(7), Some(11))));
    check("maillog-20120711-063000.gz", Some((2012, Some(7), Some(11))));
    check("mail_2012_07_10", Some((2012, Some(7), Some(10))));
    check("mail.2012.07.10.xz", Some((2012, Some(7), Some(10))));
    check("mail-201207.log", Some((2012, Some(7), None)));
    check("mail-2012-07.log", Some((2012, Some(7), None)));
    check("mail-2012.log.1", Some((2012, None, None)));
    check("2001/mail.log", None);
    check("mail.log.1", None);
    check("mail-20121340", None);
    check("srv2024001.log", None);
    check("id-1999999999", None);
    check("mail-2011-01-01-to-2012-02-02", Some((2012, Some(2), Some(2))));
    check("größe-2012-07-10", Some((2012, Some(7), Some(10))));
}

#[test]
fn the_repeated_autumn_hour() {
    let lines = [
        "Oct 28 01:59:59 host",
        "Oct 28 02:00:00 host",
        "Oct 28 02:59:50 host",
        "Oct 28 02:59:40 host",
        "Oct 28 02:00:01 host",
        "Oct 28 02:00:00 host",
        "Oct 28 02:30:00 host",
        "Oct 28 03:00:00 host",
    ];
    let expected = [
        "2012-10-27T23:59:59.000Z",
        "2012-10-28T00:00:00.000Z",
        "2012-10-28T00:59:50.000Z",
        "2012-10-28T00:59:40.000Z",
        "2012-10-28T01:00:01.000Z",
        "2012-10-28T01:00:00.000Z",
        "2012-10-28T01:30:00.000Z",
        "2012-10-28T02:00:00.000Z",
    ];
    let options = || StampOptions { zone: zone("Europe/Berlin"), ..given(2012) };
    assert_eq!(read(options(), &lines), expected);
    let iso: Vec<_> = lines.iter().map(|l| format!("2012-10-28T{}", &l[7..])).collect();
    let iso: Vec<_> = iso.iter().map(String::as_str).collect();
    assert_eq!(read(options(), &iso), expected);
}

#[test]
fn the_hour_that_spring_leaves_out() {
    let lines = ["Mar 25 01:59:59 host", "Mar 25 02:30:00 host", "Mar 25 03:00:00 host", "Mar 25 03:31:00 host"];
    let expected = [
        "2012-03-25T00:59:59.000Z",
        "2012-03-25T01:30:00.000Z",
        "2012-03-25T01:00:00.000Z",
        "2012-03-25T01:31:00.000Z",
    ];
    assert_eq!(read(StampOptions { zone: zone("Europe/Berlin"), ..given(2012) }, &lines), expected);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_make_it_panic(lines in proptest::collection::vec(proptest::collection::vec(0u8..255, 0..40), 0..20)) {
        let mut stamper = Stamper::new(StampOptions { zone: zone("Europe/Berlin"), ..StampOptions::default() });
        for line in &lines {
            if let Some((_, at)) = stamper.stamp(line) {
                assert!(at <= line.len());
            }
        }
    }

    #[test]
    fn stamps_that_we_write_are_read_back(seconds in 0i64..4_000_000_000, shape in 0u8..3) {
        let time = jiff::Timestamp::from_second(seconds).unwrap();
        let berlin = zone("Europe/Berlin");
        let (civil, offset) = (berlin.to_datetime(time), berlin.to_offset(time));
        let (line, options) = match shape {
            0 => (format!("{time} host"), StampOptions::default()),
            1 => (format!("{civil}{offset} host"), StampOptions::default()),
            _ => (time.strftime("%b %e %H:%M:%S host").to_string(), given(TimeZone::UTC.to_datetime(time).year())),
        };
        assert_eq!(Stamper::new(options).stamp(line.as_bytes()).unwrap().0, Timestamp(seconds * 1000), "{}", line);
    }
}
