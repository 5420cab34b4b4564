//! The texts of one send, its queue id and the domains of its recipients, in one block of memory: where an account is met, nearly
//! every send has both, and each would be a piece of its own.

/// A queue id, and names of domains with a number each. Empty, it has no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts(Box<[u8]>);

/// Before the queue id: its length plus one, 0 where there is none.
const ID_HEAD: usize = 2;
/// Before each domain: its number and its length.
const HEAD: usize = 6;

impl Texts {
    /// A queue id, and a domain counted once.
    pub fn new(queue_id: Option<&str>, domain: Option<&str>) -> Self {
        if queue_id.is_none() && domain.is_none() {
            return Self::default();
        }
        let id = queue_id.unwrap_or_default();
        let mut bytes = Vec::with_capacity(ID_HEAD + id.len() + domain.map_or(0, |d| HEAD + d.len()));
        bytes.extend_from_slice(&queue_id.map_or(0, |id| id.len() as u16 + 1).to_le_bytes());
        bytes.extend_from_slice(id.as_bytes());
        if let Some(domain) = domain {
            bytes.extend_from_slice(&1_u32.to_le_bytes());
            bytes.extend_from_slice(&(domain.len() as u16).to_le_bytes());
            bytes.extend_from_slice(domain.as_bytes());
        }
        Self(bytes.into_boxed_slice())
    }

    /// The queue id, where there is one.
    pub fn queue_id(&self) -> Option<&str> {
        let (head, rest) = self.0.split_first_chunk::<ID_HEAD>()?;
        let len = usize::from(u16::from_le_bytes(*head)).checked_sub(1)?;
        std::str::from_utf8(rest.get(..len)?).ok()
    }

    /// Keeps a queue id of at most 65,534 bytes, in the place of another.
    pub fn set_queue_id(&mut self, queue_id: Option<&str>) {
        if self.0.is_empty() && queue_id.is_none() {
            return;
        }
        let domains = &self.0[self.domains_begin()..];
        let id = queue_id.unwrap_or_default();
        let mut bytes = Vec::with_capacity(ID_HEAD + id.len() + domains.len());
        bytes.extend_from_slice(&queue_id.map_or(0, |id| id.len() as u16 + 1).to_le_bytes());
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(domains);
        self.0 = bytes.into_boxed_slice();
    }

    /// The domains and their numbers, in order of appearance.
    pub fn domains(&self) -> impl Iterator<Item = (&str, u32)> {
        self.entries().map(|(at, end, n)| (std::str::from_utf8(&self.0[at + HEAD..end]).unwrap_or_default(), n))
    }

    /// Adds one to the number of a domain that is there. Returns whether it is.
    pub fn count_again(&mut self, domain: &str) -> bool {
        let found = self.entries().find(|&(at, end, _)| &self.0[at + HEAD..end] == domain.as_bytes());
        let Some((at, _, n)) = found else { return false };
        self.0[at..at + 4].copy_from_slice(&(n + 1).to_le_bytes());
        true
    }

    /// Adds a domain of at most 65,535 bytes, which is not there yet.
    pub fn push(&mut self, domain: &str, n: u32) {
        let mut bytes = std::mem::take(&mut self.0).into_vec();
        bytes.reserve_exact(ID_HEAD + HEAD + domain.len());
        if bytes.is_empty() {
            bytes.extend_from_slice(&[0; ID_HEAD]);
        }
        bytes.extend_from_slice(&n.to_le_bytes());
        bytes.extend_from_slice(&(domain.len() as u16).to_le_bytes());
        bytes.extend_from_slice(domain.as_bytes());
        self.0 = bytes.into_boxed_slice();
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    fn domains_begin(&self) -> usize {
        let head = self.0.first_chunk::<ID_HEAD>();
        head.map_or(0, |head| ID_HEAD + usize::from(u16::from_le_bytes(*head)).saturating_sub(1))
    }

    /// Where each domain begins with its head, where it ends, and its number.
    fn entries(&self) -> impl Iterator<Item = (usize, usize, u32)> {
        let mut at = self.domains_begin();
        std::iter::from_fn(move || {
            let [a, b, c, d, len @ ..] = *self.0.get(at..)?.first_chunk::<HEAD>()?;
            let begin = at;
            at += HEAD + usize::from(u16::from_le_bytes(len));
            Some((begin, at, u32::from_le_bytes([a, b, c, d])))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Texts;

    #[test]
    fn what_is_put_in_comes_out() {
        let mut begun = Texts::default();
        begun.set_queue_id(Some("id"));
        begun.push("b.example", 1);
        assert_eq!(Texts::new(Some("id"), Some("b.example")), begun);
        assert_eq!(Texts::new(None, None), Texts::default());
        let mut texts = Texts::default();
        texts.set_queue_id(None);
        assert_eq!((texts.queue_id(), texts.domains().count(), texts.heap_bytes()), (None, 0, 0));
        texts.push("a.example", 1);
        assert!(!texts.count_again("a.exampl") && !texts.count_again(""));
        texts.set_queue_id(Some("4XkQ7z"));
        texts.push("", 7);
        assert!(texts.count_again("a.example") && texts.count_again(""));
        assert_eq!(texts.queue_id(), Some("4XkQ7z"));
        assert_eq!(texts.domains().collect::<Vec<_>>(), [("a.example", 2), ("", 8)]);
        texts.set_queue_id(Some(""));
        assert_eq!((texts.queue_id(), texts.domains().count()), (Some(""), 2));
        texts.set_queue_id(None);
        assert_eq!((texts.queue_id(), texts.domains().last()), (None, Some(("", 8))));
    }
}
