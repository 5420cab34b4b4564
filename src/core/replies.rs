//! Replies by which large receivers and blocklists say that they refuse a relay's address, or that it is the message they
//! refuse: a table, each row with where it is written down.
//!
//! The first row of the table that a reply contains counts. So rows about what is *in* a message stand first, then the lists, whose
//! word is repeated by many receivers and is still one, then the receivers, then words that anybody uses.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use serde::{Deserialize, Serialize};

/// Who refuses. A bounded set: what is counted is counted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Apple: iCloud, me.com, mac.com.
    Apple,
    /// Barracuda's list and filters.
    Barracuda,
    /// Cisco Talos (SenderBase).
    Cisco,
    /// Cloudmark Sender Intelligence.
    Cloudmark,
    /// Comcast, Xfinity.
    Comcast,
    /// GMX, web.de, mail.com, 1&1.
    Gmx,
    /// Gmail and Google Workspace.
    Google,
    /// mail.ru.
    MailRu,
    /// Outlook.com, Exchange Online.
    Microsoft,
    /// Mimecast.
    Mimecast,
    /// Proofpoint.
    Proofpoint,
    /// SpamCop.
    Spamcop,
    /// Spamhaus.
    Spamhaus,
    /// Deutsche Telekom.
    TOnline,
    /// UCEPROTECT.
    Uceprotect,
    /// Yahoo, AOL.
    Yahoo,
    /// Anybody else, and what is not known.
    Other,
}

/// What a reply means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Our address is on a list.
    Listed,
    /// Our address is thought ill of, or is not what a mail server's should be.
    Reputation,
    /// Our address may send less because of what came from it.
    Rate,
    /// The message is refused, or somebody who is named in it: not our address.
    Content,
    /// The sender's domain is thought ill of: the customer's matter, neither this account's nor our address's.
    Domain,
}

impl Meaning {
    /// Whether it is our address that is refused.
    pub fn is_of_relay(self) -> bool {
        matches!(self, Self::Listed | Self::Reputation | Self::Rate)
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    /// Who says so.
    pub family: Family,
    /// What it means.
    pub meaning: Meaning,
    /// Words of the reply, in lower case. A space at the end stands for the end of a word.
    pub words: &'static str,
    /// The title of the document that has it.
    pub source: &'static str,
}

const GOOGLE: &str = "Google Workspace Admin Help: Gmail SMTP errors and codes";
const OUTLOOK: &str = "Outlook.com Postmaster: Troubleshooting, errors";
const EXCHANGE: &str = "Microsoft Learn: Email non-delivery reports and SMTP errors in Exchange Online";
const YAHOO: &str = "Yahoo Sender Hub: SMTP Error Codes";
const AOL: &str = "AOL Postmaster: Errors";
const APPLE: &str = "Apple Support: Postmaster information for iCloud Mail";
const COMCAST: &str = "Xfinity Support: Postmaster, error codes";
const GMX: &str = "GMX/web.de Postmaster: SMTP error messages";
const TELEKOM: &str = "Telekom Postmaster: FAQ, error messages of our mail servers";
const MAIL_RU: &str = "Mail.ru Postmaster: Rejected messages";
const SPAMHAUS: &str = "Spamhaus: FAQ, DNSBL usage and return codes";
const SPAMCOP: &str = "SpamCop FAQ: How do I configure my mailserver to reject mail based on the blocklist";
const BARRACUDA: &str = "Barracuda Central: Reputation lookup and removal request";
const PROOFPOINT: &str = "Proofpoint Dynamic Reputation: IP lookup (ipcheck)";
const MIMECAST: &str = "Mimecast Community: SMTP error codes";
const CLOUDMARK: &str = "Cloudmark Sender Intelligence: Reset request";
const CISCO: &str = "Cisco Secure Email: HAT reject message, Talos reputation";
const UCEPROTECT: &str = "UCEPROTECT: Rejects and how to use the lists";
const URI_LISTS: &str = "SURBL, URIBL: Usage";
const POSTFIX: &str = "Postfix: postconf(5), client and HELO restrictions";
const ANYBODY: &str = "RFC 6471 (DNSBL operation), RFC 7372 (x.7.25), and what servers say in logs";

const fn row(family: Family, meaning: Meaning, words: &'static str, source: &'static str) -> Pattern {
    Pattern { family, meaning, words, source }
}

use Family as F;
use Meaning::{Content, Domain, Listed, Rate, Reputation};

/// The table, in the order in which its rows count.
pub const TABLE: &[Pattern] = &[
    // What is in the message.
    row(F::Other, Content, "url listed", URI_LISTS),
    row(F::Other, Content, "blacklisted url", URI_LISTS),
    row(F::Other, Content, "surbl", URI_LISTS),
    row(F::Other, Content, "uribl", URI_LISTS),
    row(F::Spamhaus, Content, "dbl.spamhaus", SPAMHAUS),
    row(F::Spamhaus, Content, "spamhaus dbl", SPAMHAUS),
    row(F::Spamhaus, Content, "spamhaus.org/dbl", SPAMHAUS),
    row(F::Google, Content, "likely unsolicited mail", GOOGLE),
    row(F::Google, Content, "unsolicited mail containing one of your url domains", GOOGLE),
    row(F::Google, Domain, "reputation of the sending domain", GOOGLE),
    row(F::Google, Domain, "unsolicited mail originating from your spf domain", GOOGLE),
    row(F::Google, Domain, "unsolicited mail originating from your dkim domain", GOOGLE),
    row(F::Microsoft, Content, "banned sender[", EXCHANGE),
    row(F::Apple, Content, "[cs01]", APPLE),
    row(F::Apple, Content, "[cs02]", APPLE),
    row(F::Apple, Content, "[hm07]", APPLE),
    // Lists.
    row(F::Spamhaus, Listed, "spamhaus", SPAMHAUS),
    row(F::Spamcop, Listed, "spamcop", SPAMCOP),
    row(F::Barracuda, Listed, "barracudacentral", BARRACUDA),
    row(F::Barracuda, Listed, "barracudanetworks.com/reputation", BARRACUDA),
    row(F::Barracuda, Listed, "barracuda reputation", BARRACUDA),
    row(F::Uceprotect, Listed, "uceprotect", UCEPROTECT),
    row(F::Cloudmark, Reputation, "csi.cloudmark.com", CLOUDMARK),
    row(F::Cloudmark, Reputation, "cloudmark sender intelligence", CLOUDMARK),
    row(F::Proofpoint, Reputation, "ipcheck.proofpoint.com", PROOFPOINT),
    row(F::Cisco, Reputation, "sending mta's poor reputation", CISCO),
    row(F::Cisco, Reputation, "senderbase", CISCO),
    row(F::Cisco, Reputation, "talosintelligence", CISCO),
    row(F::Mimecast, Listed, "ip found on rbl", MIMECAST),
    row(F::Mimecast, Listed, "ip temporarily blacklisted", MIMECAST),
    // Receivers.
    row(F::Google, Rate, "unusual rate of unsolicited mail originating from your ip", GOOGLE),
    row(F::Google, Rate, "unsolicited mail originating from your ip netblock", GOOGLE),
    row(F::Google, Reputation, "reputation of the sending ip", GOOGLE),
    row(F::Google, Reputation, "the ip you're using to send mail is not authorized", GOOGLE),
    row(F::Google, Reputation, "ipv6 sending guidelines", GOOGLE),
    row(F::Google, Reputation, "support.google.com/mail/?p=rejectedmessage", GOOGLE),
    row(F::Microsoft, Listed, "part of their network is on our block list", OUTLOOK),
    row(F::Microsoft, Listed, "(s3140)", OUTLOOK),
    row(F::Microsoft, Listed, "(s3150)", OUTLOOK),
    row(F::Microsoft, Rate, "temporarily rate limited due to ip reputation", OUTLOOK),
    row(F::Microsoft, Rate, "(s775)", OUTLOOK),
    row(F::Microsoft, Listed, "access denied, banned sending ip", EXCHANGE),
    row(F::Microsoft, Listed, "blocked using customer block list", EXCHANGE),
    row(F::Microsoft, Listed, "blocked using fbl", EXCHANGE),
    row(F::Yahoo, Rate, "[tss", YAHOO),
    row(F::Yahoo, Rate, "[ts01]", YAHOO),
    row(F::Yahoo, Rate, "[ts02]", YAHOO),
    row(F::Yahoo, Rate, "[ts03]", YAHOO),
    row(F::Yahoo, Rate, "deferred due to unexpected volume or user complaints", YAHOO),
    row(F::Yahoo, Listed, "[bl21]", YAHOO),
    row(F::Yahoo, Listed, "[bl23]", YAHOO),
    row(F::Yahoo, Listed, "connections will not be accepted from", YAHOO),
    row(F::Yahoo, Listed, "postmaster.info.aol.com/errors/554hvu", AOL),
    row(F::Yahoo, Rate, "(rtr:", AOL),
    row(F::Apple, Reputation, "your ip address is on our block list [ip", APPLE),
    row(F::Comcast, Listed, "comcast bl0", COMCAST),
    row(F::Comcast, Rate, "comcast rl0", COMCAST),
    row(F::Comcast, Reputation, "comcast ph01", COMCAST),
    row(F::Comcast, Listed, "spa.xfinity.com/report", COMCAST),
    row(F::Gmx, Reputation, "bad dns ptr resource record", GMX),
    row(F::Gmx, Listed, "ip address is black listed", GMX),
    row(F::Gmx, Listed, "ip address is block listed", GMX),
    row(F::Gmx, Reputation, "postmaster.gmx.net", GMX),
    row(F::Gmx, Reputation, "postmaster.web.de", GMX),
    row(F::TOnline, Listed, "tosa@rx.t-online.de", TELEKOM),
    row(F::TOnline, Reputation, "@rx.t-online.de", TELEKOM),
    row(F::MailRu, Listed, "access from ip address", MAIL_RU),
    // Words that anybody uses.
    row(F::Other, Listed, "blocked using", ANYBODY),
    row(F::Other, Listed, "blacklist", ANYBODY),
    row(F::Other, Listed, "black list", ANYBODY),
    row(F::Other, Listed, "blocklist", ANYBODY),
    row(F::Other, Listed, "block list", ANYBODY),
    row(F::Other, Listed, "dnsbl", ANYBODY),
    row(F::Other, Listed, "sorbs.net", ANYBODY),
    row(F::Other, Listed, "listed at", ANYBODY),
    row(F::Other, Listed, "listed in", ANYBODY),
    row(F::Other, Listed, "listed on", ANYBODY),
    row(F::Other, Listed, "is listed", ANYBODY),
    row(F::Other, Reputation, "reputation", ANYBODY),
    row(F::Other, Reputation, "your ip ", ANYBODY),
    row(F::Other, Reputation, "the ip you", ANYBODY),
    row(F::Other, Reputation, "sending ip", ANYBODY),
    row(F::Other, Reputation, "ip address", ANYBODY),
    row(F::Other, Reputation, " ip=", ANYBODY),
    row(F::Other, Reputation, "?ip=", ANYBODY),
    row(F::Other, Reputation, "&ip=", ANYBODY),
    row(F::Other, Reputation, "ptr record", ANYBODY),
    row(F::Other, Reputation, "client host", POSTFIX),
    row(F::Other, Reputation, "helo command rejected", POSTFIX),
    row(F::Other, Reputation, "service unavailable; client", POSTFIX),
    row(F::Other, Reputation, "banned sending", ANYBODY),
];

/// All words at once: a reply is read through once. `None` cannot be: a test builds it.
static WORDS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let words = TABLE.iter().map(|p| p.words.trim_end());
    AhoCorasickBuilder::new().ascii_case_insensitive(true).build(words).ok()
});

/// The first row of the table that a reply contains.
pub fn known(reply: &str) -> Option<&'static Pattern> {
    let words = WORDS.as_ref()?;
    let is_whole = |end: usize, at: usize| {
        !TABLE[at].words.ends_with(' ') || !reply.as_bytes().get(end).is_some_and(u8::is_ascii_alphanumeric)
    };
    let found = words.find_overlapping_iter(reply).filter(|m| is_whole(m.end(), m.pattern().as_usize()));
    found.map(|m| m.pattern().as_usize()).min().and_then(|at| TABLE.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_count_and_says_where_it_is_from() {
        assert!(WORDS.is_some());
        for (at, pattern) in TABLE.iter().enumerate() {
            assert_eq!(pattern.words, pattern.words.to_ascii_lowercase());
            assert!(pattern.source.len() > 10, "{pattern:?}");
            let found = known(pattern.words).map(|p| p.words);
            // A later row whose words contain an earlier one's would never count.
            assert_eq!(found, Some(pattern.words), "row {at} is hidden");
        }
    }

    #[test]
    fn who_refuses_is_told_apart() {
        for (reply, family, meaning) in [
            (
                "421-4.7.0 [203.0.113.7 15] Our system has detected an unusual rate of unsolicited mail originating from your IP address.",
                Family::Google,
                Rate,
            ),
            (
                "550-5.7.1 [203.0.113.7] very low reputation of the sending domain. To best protect our users",
                Family::Google,
                Domain,
            ),
            (
                "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your DKIM domain.",
                Family::Google,
                Domain,
            ),
            (
                "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail containing one of your URL domains.",
                Family::Google,
                Content,
            ),
            (
                "550 5.7.1 Your email was rejected due to having a domain present in the Spamhaus DBL -- see https://www.spamhaus.org/dbl/",
                Family::Spamhaus,
                Content,
            ),
            (
                "451 4.7.650 The mail server [203.0.113.7] has been temporarily rate limited due to IP reputation. (S775)",
                Family::Microsoft,
                Rate,
            ),
            (
                "421 4.7.0 [TSS04] Messages from 203.0.113.7 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1",
                Family::Yahoo,
                Rate,
            ),
            (
                "553 5.7.1 [BL21] Connections will not be accepted from 203.0.113.7, because the ip is in Spamhaus's list",
                Family::Spamhaus,
                Listed,
            ),
            ("554 5.7.1 [CS01] Message rejected due to local policy.", Family::Apple, Content),
            ("554 imta comcast 203.0.113.7 Comcast BL004 Blocked for spam.", Family::Comcast, Listed),
            ("554 IP=203.0.113.7 - A problem occurred. (Ask tosa@rx.t-online.de) (BL)", Family::TOnline, Listed),
            (
                "554 IP=203.0.113.7 - None/bad reputation. Ask your postmaster for help or to contact postmaster@rx.t-online.de (NOWL)",
                Family::TOnline,
                Reputation,
            ),
            ("550 We refuse mail from your IP.", Family::Other, Reputation),
        ] {
            let found = known(reply).map(|p| (p.family, p.meaning));
            assert_eq!(found, Some((family, meaning)), "{reply}");
        }
        assert!(known("550 your iphone is not welcome").is_none());
        assert!(known("550 5.1.1 user unknown").is_none());
    }
}
