//! What few sends have, or not for long, in one block of memory: a queue id, fingerprints of content and new recipients, the
//! domains of these. Where an account is met, nearly every send has them, and each would be a piece of its own.

/// A queue id, fingerprints, and names of domains with a number each. Empty, it has no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts(Box<[u8]>);

/// At the beginning: the length of the queue id plus one, 0 where there is none; then how many fingerprints of recipients
/// there are, and whether there is one of the content.
const FRONT: usize = 3;
const HAS_CONTENT: u8 = 0x80;
/// Of one fingerprint.
const PRINT: usize = 4;
/// Before each domain: its number and its length.
const HEAD: usize = 6;
/// Fingerprints of new recipients that one send keeps: the smallest ones, as many as a burst needs ([`Bottom`]).
///
/// [`Bottom`]: super::bottom::Bottom
pub const PRINTS_MAX: usize = super::bottom::KEPT;

impl Texts {
    /// These, and no domain yet. The queue id has at most 65,534 bytes.
    fn begin(queue_id: Option<&str>, content: Option<u32>, prints: &[u8], domains: usize) -> Vec<u8> {
        let id = queue_id.unwrap_or_default();
        let mut bytes = Vec::with_capacity(FRONT + id.len() + PRINT + prints.len() + domains);
        bytes.extend_from_slice(&queue_id.map_or(0, |id| id.len() as u16 + 1).to_le_bytes());
        bytes.push((prints.len() / PRINT) as u8 | if content.is_some() { HAS_CONTENT } else { 0 });
        bytes.extend_from_slice(id.as_bytes());
        content.inspect(|content| bytes.extend_from_slice(&content.to_le_bytes()));
        bytes.extend_from_slice(prints);
        bytes
    }

    /// These, and no domain. `prints` are at most [`PRINTS_MAX`] fingerprints, each of four bytes, the lowest first.
    pub fn of(queue_id: Option<&str>, content: Option<u32>, prints: &[u8]) -> Self {
        if queue_id.is_none() && content.is_none() && prints.is_empty() {
            return Self::default();
        }
        Self(Self::begin(queue_id, content, prints, 0).into_boxed_slice())
    }

    /// Only the fingerprint of the content.
    pub fn of_content(content: u32) -> Self {
        Self::of(None, Some(content), &[])
    }

    /// A queue id, a new recipient, and its domain counted once; the content as it was.
    pub fn met(&self, queue_id: Option<&str>, print: u32, domain: Option<&str>) -> Self {
        let room = domain.map_or(0, |d| HEAD + d.len());
        let mut bytes = Self::begin(queue_id, self.content(), &print.to_le_bytes(), room);
        domain.inspect(|domain| push_domain(&mut bytes, domain, 1));
        Self(bytes.into_boxed_slice())
    }

    /// The queue id, where there is one.
    pub fn queue_id(&self) -> Option<&str> {
        std::str::from_utf8(self.0.get(FRONT..FRONT + self.id_len()?)?).ok()
    }

    /// Keeps a queue id of at most 65,534 bytes, in the place of another.
    pub fn set_queue_id(&mut self, queue_id: Option<&str>) {
        if self.0.is_empty() && queue_id.is_none() {
            return;
        }
        let domains = &self.0[self.domains_begin()..];
        let mut bytes = Self::begin(queue_id, self.content(), self.print_bytes(), domains.len());
        bytes.extend_from_slice(domains);
        self.0 = bytes.into_boxed_slice();
    }

    /// The fingerprint of the content, where it is known.
    pub fn content(&self) -> Option<u32> {
        let at = self.content_at()?;
        (self.front() & HAS_CONTENT != 0).then_some(())?;
        self.0.get(at..)?.first_chunk().map(|c| u32::from_le_bytes(*c))
    }

    /// The fingerprints of new recipients, in order of appearance.
    pub fn prints(&self) -> impl Iterator<Item = u32> {
        self.print_bytes().chunks_exact(PRINT).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
    }

    /// Adds the fingerprint of a new recipient; beyond the bound the largest goes.
    pub fn push_print(&mut self, print: u32) {
        let end = self.domains_begin();
        let begin = end - self.print_bytes().len();
        if (end - begin) / PRINT < PRINTS_MAX {
            let mut prints = self.print_bytes().to_vec();
            prints.extend_from_slice(&print.to_le_bytes());
            let mut bytes = Self::begin(self.queue_id(), self.content(), &prints, self.0.len() - end.min(self.0.len()));
            bytes.extend_from_slice(self.0.get(end..).unwrap_or_default());
            self.0 = bytes.into_boxed_slice();
            return;
        }
        let largest = self.prints().enumerate().max_by_key(|(i, print)| (*print, *i));
        if let Some((i, _)) = largest.filter(|(_, largest)| *largest > print) {
            let place = &mut self.0[begin + i * PRINT..end];
            place.rotate_left(PRINT);
            let last = place.len() - PRINT;
            place[last..].copy_from_slice(&print.to_le_bytes());
        }
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
        bytes.reserve_exact(FRONT + HEAD + domain.len());
        if bytes.is_empty() {
            bytes.extend_from_slice(&[0; FRONT]);
        }
        push_domain(&mut bytes, domain, n);
        self.0 = bytes.into_boxed_slice();
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.len()
    }

    fn front(&self) -> u8 {
        self.0.get(FRONT - 1).copied().unwrap_or_default()
    }

    fn id_len(&self) -> Option<usize> {
        usize::from(u16::from_le_bytes(*self.0.first_chunk()?)).checked_sub(1)
    }

    /// Where the fingerprint of the content is, or would be.
    fn content_at(&self) -> Option<usize> {
        (!self.0.is_empty()).then(|| FRONT + self.id_len().unwrap_or_default())
    }

    fn print_bytes(&self) -> &[u8] {
        let begin = self.content_at().map_or(0, |at| at + if self.front() & HAS_CONTENT == 0 { 0 } else { PRINT });
        let len = usize::from(self.front() & !HAS_CONTENT) * PRINT;
        self.0.get(begin..begin + len).unwrap_or_default()
    }

    fn domains_begin(&self) -> usize {
        let content = if self.front() & HAS_CONTENT == 0 { 0 } else { PRINT };
        self.content_at().map_or(0, |at| at + content + usize::from(self.front() & !HAS_CONTENT) * PRINT)
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

fn push_domain(bytes: &mut Vec<u8>, domain: &str, n: u32) {
    bytes.extend_from_slice(&n.to_le_bytes());
    bytes.extend_from_slice(&(domain.len() as u16).to_le_bytes());
    bytes.extend_from_slice(domain.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{PRINTS_MAX, Texts};

    #[test]
    fn what_is_put_in_comes_out() {
        let mut begun = Texts::default();
        begun.set_queue_id(Some("id"));
        begun.push_print(7);
        begun.push("b.example", 1);
        assert_eq!(Texts::default().met(Some("id"), 7, Some("b.example")), begun);
        assert_eq!((begun.content(), begun.prints().collect::<Vec<_>>()), (None, vec![7]));
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

    #[test]
    fn the_smallest_fingerprints_stay_in_the_order_of_their_coming() {
        let mut texts = Texts::of_content(9);
        assert_eq!(
            (texts.content(), texts.queue_id(), texts.prints().count(), texts.domains().count()),
            (Some(9), None, 0, 0)
        );
        texts = texts.met(Some("4XkQ7z"), 1000, None);
        texts.push("a.example", 3);
        let all: Vec<u32> = (0..100).map(|i| i * 37 % 101 * 7).collect();
        all.iter().for_each(|&print| texts.push_print(print));
        let mut smallest = all.clone();
        smallest.sort_unstable();
        smallest.truncate(PRINTS_MAX);
        let stay: Vec<u32> = all.iter().copied().filter(|print| smallest.contains(print)).collect();
        assert_eq!(texts.prints().collect::<Vec<_>>(), stay);
        texts.set_queue_id(None);
        assert!(texts.count_again("a.example"));
        assert_eq!((texts.content(), texts.queue_id()), (Some(9), None));
        assert_eq!(texts.domains().collect::<Vec<_>>(), [("a.example", 4)]);
        assert_eq!(texts.prints().collect::<Vec<_>>(), stay);
    }
}
