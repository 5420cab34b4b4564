//! What real servers' replies are taken to speak about. Texts as large receivers and common programs write them, addresses
//! changed.

use mailfuse::core::refusal::{Answer, read};
use mailfuse::event::{Outcome, Status};

use Answer::{Accepted, Neutral, Refused, Reputation, Telling};

fn answer(status: Status, dsn: &str, reply: &str) -> Answer {
    read(&Outcome {
        relay: None,
        rcpt: "somebody@example.org".into(),
        status,
        dsn: (!dsn.is_empty()).then(|| dsn.into()),
        reply: (!reply.is_empty()).then(|| reply.into()),
        queue_id: None,
        relay_queue_id: None,
    })
    .answer
}

#[track_caller]
fn check(expected: Answer, dsn: &str, reply: &str) {
    for status in [Status::Bounced, Status::Rejected] {
        assert_eq!(answer(status, dsn, reply), expected, "{dsn} {reply}");
    }
    // Whatever the words: what is to be tried again, or was given up on, is no refusal.
    assert_eq!(answer(Status::Deferred, dsn, reply), Neutral, "{dsn} {reply}");
    assert_eq!(answer(Status::Expired, dsn, reply), Neutral, "{dsn} {reply}");
    assert_eq!(answer(Status::Delivered, dsn, reply), Accepted, "{dsn} {reply}");
}

/// There is no such recipient.
#[test]
fn unknown_users() {
    for (dsn, reply) in [
        // Gmail
        (
            "5.1.1",
            "550-5.1.1 The email account that you tried to reach does not exist. Please try 550-5.1.1 double-checking the recipient's email address for typos or unnecessary spaces. 550 5.1.1 https://support.google.com/mail/?p=NoSuchUser d2e1a72fcca58-6e0 - gsmtp",
        ),
        (
            "5.2.1",
            "550-5.2.1 The email account that you tried to reach is inactive. 550 5.2.1 https://support.google.com/mail/?p=DisabledUser - gsmtp",
        ),
        // Outlook and Exchange Online
        (
            "5.5.0",
            "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302). [BN8NAM11FT044.eop-nam11.prod.protection.outlook.com]",
        ),
        ("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
        (
            "5.4.1",
            "550 5.4.1 Recipient address rejected: Access denied. For more information see https://aka.ms/EXOSmtpErrors [DB5EUR01FT031.eop-EUR01.prod.protection.outlook.com]",
        ),
        // Yahoo
        (
            "5.0.0",
            "554 delivery error: dd This user doesn't have a yahoo.com account (bob@yahoo.com) [0] - mta1234.mail.bf1.yahoo.com",
        ),
        (
            "5.0.0",
            "554 30 Sorry, your message to bob@yahoo.com cannot be delivered. This mailbox is disabled (554.30). - mta4.mail.gq1.yahoo.com",
        ),
        ("5.0.0", "552 1 Requested mail action aborted, mailbox not found"),
        // mail.ru, Yandex, QQ
        (
            "5.0.0",
            "550 Message was not accepted -- invalid mailbox.  Local mailbox bob@mail.ru is unavailable: user not found",
        ),
        (
            "5.0.0",
            "550 Message was not accepted -- invalid mailbox.  Local mailbox bob@mail.ru is unavailable: account is disabled",
        ),
        ("5.7.1", "550 5.7.1 No such user!"),
        ("5.0.0", "550 Mailbox not found. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000728"),
        // Programs
        ("5.1.1", "550 5.1.1 <bob@example.org>: Recipient address rejected: User unknown in local recipient table"),
        ("5.1.1", "550 5.1.1 User Unknown"),
        ("5.0.0", "550 No Such User Here"),
        ("5.0.0", "550 <bob@example.org>, Recipient unknown"),
        ("5.0.0", "511 sorry, no mailbox here by that name (#5.1.1 - chkuser)"),
        ("5.0.0", "550 Unrouteable address"),
        ("5.0.0", "550 Invalid recipient bob@example.org (#5.1.1)"),
        // Domino. "Listed in" speaks of its directory, not of a blocklist.
        ("5.1.1", "550 5.1.1 bob@example.org... User unknown; bob not listed in Domino Directory"),
        ("5.0.0", "554 User bob (bob@example.org) not listed in public Name & Address Book"),
        // A mailbox named after what it is for.
        (
            "5.1.1",
            "550 5.1.1 <spamhaus@example.org>: Recipient address rejected: User unknown in virtual mailbox table",
        ),
    ] {
        check(Telling, dsn, reply);
    }
}

/// It is what the message is, or who sent it.
#[test]
fn spam_and_policy() {
    for (dsn, reply) in [
        (
            "5.7.1",
            "550-5.7.1 [203.0.113.7 12] Our system has detected that this message is likely unsolicited mail. To reduce the amount of spam sent to Gmail, this message has been blocked. Please visit https://support.google.com/mail/?p=UnsolicitedMessageError for more information.",
        ),
        (
            "5.7.511",
            "550 5.7.511 Access denied, banned sender[info@example.com]. To request removal from this list, please forward this message to delist@microsoft.com.",
        ),
        (
            "5.7.9",
            "554 5.7.9 Message not accepted for policy reasons.  See https://postmaster.yahooinc.com/error-codes",
        ),
        (
            "5.0.0",
            "550 spam message rejected. Please visit http://help.mail.ru/notspam-support/id?c=abc or report details to abuse@corp.mail.ru. Error: 98BFDC2E. ID: 0000000500008F9B. ",
        ),
        ("5.0.0", "550 Spam message discarded/rejected. CTE"),
        ("5.0.0", "550 Mail content denied. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000726"),
        (
            "5.0.0",
            "550 Sender frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000722",
        ),
        ("5.7.0", "550 5.7.0 Local Policy Violation - 3a7xk2b1s3-1"),
        ("5.0.0", "554 rejected due to spam content"),
        ("5.0.0", "550 High probability of spam"),
        ("5.0.0", "554 Message refused: it looks like junk"),
        // The link in the message is listed, not our address.
        (
            "5.7.1",
            "554 5.7.1 Service unavailable; message contains a URL listed in multi.surbl.org; see http://www.surbl.org",
        ),
        ("5.7.1", "554 5.7.1 Blacklisted URL in message. (22) see http://lookup.uribl.com."),
        ("5.0.0", "550 Message rejected: spam link, dbl.spamhaus.org"),
        // Digits that look like "mailbox full" inside an address.
        ("5.7.1", "550 5.7.1 Message from [195.2.2.1] looks like spam"),
        ("5.0.0", "554 spam from 192.0.5.3.4"),
    ] {
        check(Telling, dsn, reply);
    }
}

/// It is our address: says nothing about whose mail it was, whatever else stands there ("spam", 5.7.1).
#[test]
fn reputation_of_the_relay() {
    for (dsn, reply) in [
        // Lists
        (
            "5.7.1",
            "554 5.7.1 Service unavailable; Client host [203.0.113.7] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/203.0.113.7",
        ),
        (
            "5.7.1",
            "550 5.7.1 Mail from 203.0.113.7 rejected: listed at bl.spamcop.net, see https://www.spamcop.net/bl.shtml?203.0.113.7",
        ),
        ("5.0.0", "554 Your IP (203.0.113.7) is blacklisted at dnsbl.sorbs.net"),
        (
            "5.0.0",
            "554 Service unavailable; Client host [out-1.example.net] blocked using Barracuda Reputation; http://www.barracudanetworks.com/reputation/?r=1&ip=203.0.113.7",
        ),
        (
            "5.0.0",
            "521 5.2.1 :  (HVU:B1) http://postmaster.info.aol.com/errors/554hvub1.html - your IP is on our blocklist",
        ),
        // Gmail
        (
            "5.7.1",
            "550-5.7.1 [203.0.113.7] Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect our users from spam, mail sent from your IP address has been blocked.",
        ),
        (
            "5.7.1",
            "550-5.7.1 [203.0.113.7      18] Our system has detected that this message is likely suspicious due to the very low reputation of the sending IP address. To best protect our users from spam, the message has been blocked.",
        ),
        (
            "5.7.1",
            "550-5.7.1 [203.0.113.7] The IP you're using to send mail is not authorized to send email directly to our servers. Please use the SMTP relay at your service provider instead.",
        ),
        (
            "5.7.25",
            "550-5.7.25 [203.0.113.7] The IP address sending this message does not have a PTR record setup, or the corresponding forward DNS entry does not match the sending IP.",
        ),
        (
            "5.7.1",
            "550-5.7.1 [2001:db8::7] Our system has detected that this message does not meet IPv6 sending guidelines regarding PTR records and authentication.",
        ),
        // Outlook
        (
            "5.7.1",
            "550 5.7.1 Unfortunately, messages from [203.0.113.7] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3140). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors.",
        ),
        (
            "5.7.606",
            "550 5.7.606 Access denied, banned sending IP [203.0.113.7]. To request removal from this list please visit https://sender.office.com/ and follow the directions.",
        ),
        // Yahoo, Comcast, T-Online, GMX
        (
            "5.7.1",
            "553 5.7.1 [BL21] Connections will not be accepted from 203.0.113.7, because the ip is in Spamhaus's list; see https://postmaster.yahooinc.com/550-bl23",
        ),
        (
            "5.0.0",
            "554 resimta-po-01v.sys.comcast.net comcast 203.0.113.7 Comcast BL004 Blocked for spam.  Please see https://spa.xfinity.com/report.php?ip=203.0.113.7",
        ),
        (
            "5.0.0",
            "554 IP=203.0.113.7 - A problem occurred. (Ask your postmaster for help or to contact tosa@rx.t-online.de to clarify.) (BL)",
        ),
        (
            "5.0.0",
            "554-gmx.net (mxgmx017) Nemesis ESMTP Service not available 554-No SMTP service 554-Bad DNS PTR resource record.",
        ),
        (
            "5.0.0",
            "554-web.de (mxweb112) Nemesis ESMTP Service not available 554-No SMTP service 554 IP address is block listed.",
        ),
        ("5.0.0", "550 We refuse mail from your IP."),
        // Filters
        ("5.0.0", "554 Blocked - see https://ipcheck.proofpoint.com/?ip=203.0.113.7"),
        (
            "5.7.1",
            "550 5.7.1 Message rejected due to your IP reputation. Refer to https://csi.cloudmark.com/en/reset/?ip=203.0.113.7",
        ),
        ("5.7.1", "521 5.7.1 Service unavailable; client [203.0.113.7] blocked using bl.example"),
        (
            "5.0.0",
            "554-mx1.example.org 554 Your access to this mail system has been rejected due to the sending MTA's poor reputation. If you believe that this failure is in error, please contact the intended recipient via alternate means.",
        ),
        // mail.ru
        ("5.0.0", "550 Access from ip address 203.0.113.7 blocked. Visit http://help.mail.ru/mail-help/postmaster/403"),
        // Postfix's checks of the client
        ("5.7.25", "550 5.7.25 Client host rejected: cannot find your hostname, [203.0.113.7]"),
        ("5.7.1", "554 5.7.1 <out-1.example.net[203.0.113.7]>: Client host rejected: Access denied"),
        ("5.7.1", "550 5.7.1 <out-1.example.net>: Helo command rejected: Host not found"),
    ] {
        check(Reputation, dsn, reply);
    }
}

/// The recipient's mailbox is full, the message too large, or it is too early: anybody's mail is refused so.
#[test]
fn neither_about_the_account_nor_about_the_relay() {
    for (dsn, reply) in [
        (
            "5.2.2",
            "552-5.2.2 The email account that you tried to reach is over quota. Please direct 552-5.2.2 the recipient to https://support.google.com/mail/?p=OverQuotaPerm - gsmtp",
        ),
        ("5.2.2", "552-5.2.2 The recipient's inbox is out of storage space and inactive. - gsmtp"),
        (
            "5.2.2",
            "554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
        ),
        ("5.0.0", "552 5.2.2 Over quota"),
        ("5.0.0", "550 Mailbox has exceeded the limit"),
        ("5.0.0", "552 Requested mail action aborted: exceeded storage allocation"),
        ("5.0.0", "550 user's mailbox is full"),
        ("5.0.0", "552 Mailbox size limit exceeded"),
        ("5.0.0", "550 Quota exceeded (mailbox for user is full)"),
        ("5.3.4", "552 5.3.4 Message size exceeds fixed limit"),
        (
            "5.2.3",
            "552-5.2.3 Your message exceeded Google's message size limits. Please visit https://support.google.com/mail/?p=MaxSizeError - gsmtp",
        ),
        ("5.0.0", "552 Message size exceeds maximum permitted"),
        ("5.0.0", "552 message too large"),
        ("4.2.2", "452-4.2.2 The email account that you tried to reach is over quota."),
        (
            "5.0.0",
            "450 4.2.0 <bob@example.org>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.org.html",
        ),
        ("4.7.1", "451 4.7.1 Greylisting in action, please come back later"),
    ] {
        check(Neutral, dsn, reply);
    }
}

/// Refused for good, and nobody says why: the first 73 bounces of a real hijack were of this kind.
#[test]
fn refused_for_another_reason() {
    for (dsn, reply) in [
        ("5.0.0", ""),
        ("", ""),
        ("", "554 delivery error"),
        ("5.4.4", "Host or domain name not found. Name service error for name=example.invalid type=A: Host not found"),
        ("5.4.6", "mail for example.org loops back to myself"),
        // QQ counts connections from our address; but it is a burst that reaches the limit: so begins the hijack of a real log,
        // with 73 of these.
        (
            "5.0.0",
            "550 Connection frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000722",
        ),
        // Who may send for the domain is its owner's matter: neither the message nor our address is called bad.
        (
            "5.7.26",
            "550-5.7.26 Unauthenticated email from example.com is not accepted due to domain's DMARC policy. Please contact the administrator of example.com domain.",
        ),
        ("5.7.23", "550 5.7.23 Message rejected due to: SPF fail - not authorized"),
        // Words inside other words, and in links.
        ("5.0.0", "554 Contact your ipad vendor: the absorbsion failed"),
        ("5.0.0", "550 the recipient does not take mail from recip=9"),
    ] {
        check(Refused, dsn, reply);
    }
}

/// The weights, which the sums of the windows are made of.
#[test]
fn weights() {
    let quarters = [Telling, Refused, Reputation, Neutral, Accepted].map(Answer::quarters);
    assert_eq!(quarters, [4, 3, 0, 0, 0]);
}
