//! Requests of Postfix's policy delegation, as `SMTPD_POLICY_README` has them: `name=value` lines and an empty line. Pure.

/// Bytes of one request. Postfix sends some forty attributes; a value has 2048 bytes at most (`line_length_limit`).
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// What is used of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request<'a> {
    /// Who logged in; empty: nobody.
    pub sasl_username: &'a str,
    /// The envelope's recipient, at RCPT; else empty.
    pub recipient: &'a str,
    /// The client.
    pub client_address: &'a str,
}

/// What is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A line without `=`.
    #[error("a line is not name=value")]
    Line,
    /// Not `request=smtpd_access_policy`.
    #[error("it is no request for an access policy")]
    Kind,
    /// Longer than [`REQUEST_BYTES_MAX`].
    #[error("it is longer than {REQUEST_BYTES_MAX} bytes")]
    Long,
}

/// Reads the first request of `bytes`, and says how many of them it takes. `None`: its end has not come yet. Values that are not
/// UTF-8 count as empty: no account of ours is called so.
///
/// # Errors
/// Where it is none.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, BadRequest> {
    let Some(end) = memchr::memmem::find(bytes, b"\n\n") else {
        // Without any attribute the empty line comes first.
        return match bytes {
            [b'\n', ..] => Err(BadRequest::Kind),
            _ if bytes.len() > REQUEST_BYTES_MAX => Err(BadRequest::Long),
            _ => Ok(None),
        };
    };
    if end > REQUEST_BYTES_MAX {
        return Err(BadRequest::Long);
    }
    let (mut request, mut is_policy) = (Request::default(), false);
    for line in bytes[..end].split(|&b| b == b'\n') {
        let at = memchr::memchr(b'=', line).ok_or(BadRequest::Line)?;
        let value = std::str::from_utf8(&line[at + 1..]).unwrap_or_default();
        match &line[..at] {
            b"request" => is_policy = value == "smtpd_access_policy",
            b"sasl_username" => request.sasl_username = value,
            b"recipient" => request.recipient = value,
            b"client_address" => request.client_address = value,
            _ => {}
        }
    }
    if is_policy { Ok(Some((request, end + 2))) } else { Err(BadRequest::Kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_read_whole_and_only_once_it_is_whole() {
        let text = "request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a=b@x.example\nrecipient=you@y.example\n\
                    sasl_username=Ann@x.example\nclient_address=192.0.2.7\nfuture=\n\n";
        let twice = [text.as_bytes(), b"request="].concat();
        let (request, used) = parse(&twice).unwrap().unwrap();
        assert_eq!(used, text.len());
        let wanted =
            Request { sasl_username: "Ann@x.example", recipient: "you@y.example", client_address: "192.0.2.7" };
        assert_eq!(request, wanted);
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        assert_eq!(parse(b"GET / HTTP/1.1\nHost: x\n\n"), Err(BadRequest::Line));
        assert_eq!(parse(b"request=junk\n\n"), Err(BadRequest::Kind));
        assert_eq!(parse(b"sasl_username=ann\n\n"), Err(BadRequest::Kind));
        assert_eq!(parse(b"\n"), Err(BadRequest::Kind));
        assert_eq!(parse(&[b'x'; REQUEST_BYTES_MAX + 1]), Err(BadRequest::Long));
        let (request, _) = parse(b"request=smtpd_access_policy\nsasl_username=\xff\n\n").unwrap().unwrap();
        assert_eq!(request.sasl_username, "");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_and_take_no_more_than_there_are(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(Some((_, used))) = parse(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }

        #[test]
        fn what_was_written_is_read(
            account in "[^\n\r]{0,40}", recipient in "[^\n\r]{0,40}", others in proptest::collection::vec("[a-z]{9}=[^\n]{0,20}", 0..20)
        ) {
            let text = format!(
                "request=smtpd_access_policy\n{}sasl_username={account}\nrecipient={recipient}\n\n",
                others.iter().map(|o| format!("{o}\n")).collect::<String>()
            );
            let (request, used) = parse(text.as_bytes()).unwrap().unwrap();
            prop_assert_eq!((request.sasl_username, request.recipient, used), (&*account, &*recipient, text.len()));
        }
    }
}
