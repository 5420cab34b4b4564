//! The hosts of the set of logs, and which of the relays that lines name are our own.

use hashbrown::{HashMap, HashSet};

/// Hosts and instances kept apart, at most. A log that names more is not one provider's.
const NODES_MAX: usize = 1024;

/// Own relays learned from hand-overs, at most.
const LEARNED_MAX: usize = 1024;

/// One queue: a host, or one of several instances of Postfix on it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) host: Box<str>,
    /// The first part of the syslog name.
    instance: Box<str>,
    /// How events name it: the host, or `host/instance` once the host has shown several queues and this one's
    /// instance is not plain `postfix`.
    pub(super) name: Box<str>,
    /// A queue manager or cleanup has logged under this name, so it is a queue of its own.
    pub(super) queue_seen: bool,
    /// It has handed mail of accounts over to another own host.
    pub(super) hands_over: bool,
    /// It has delivered mail of accounts to the outside itself.
    pub(super) delivers: bool,
    /// The queue that this name's lines belong to: itself but for `-o syslog_name=` on smtpd alone.
    queue: u32,
}

/// The own hosts.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    by_name: HashMap<Box<[u8]>, u32>,
    /// The name and number of the line before: neighbours are mostly of one host.
    last: (Vec<u8>, u32),
    key: Vec<u8>,
    hosts: HashSet<Box<str>>,
    configured: HashSet<Box<str>>,
    /// First labels of the configured names that have more.
    configured_labels: HashSet<Box<str>>,
    learned: HashSet<Box<[u8]>>,
}

impl Nodes {
    pub(super) fn new(own_hosts: &[String]) -> Self {
        let configured: HashSet<Box<str>> =
            own_hosts.iter().map(|h| h.trim().to_ascii_lowercase().into_boxed_str()).collect();
        let qualified = configured.iter().filter(|h| h.parse::<std::net::IpAddr>().is_err());
        let configured_labels = qualified.filter_map(|h| Some(h.split_once('.')?.0.into())).collect();
        Self {
            nodes: Vec::new(),
            by_name: HashMap::new(),
            last: (Vec::new(), u32::MAX),
            key: Vec::new(),
            hosts: HashSet::new(),
            configured,
            configured_labels,
            learned: HashSet::new(),
        }
    }

    pub(super) fn get(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    pub(super) fn get_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The queue of a host and instance. `None` where there are too many.
    pub(super) fn intern(&mut self, host: &[u8], instance: &[u8]) -> Option<u32> {
        let (last, node) = &self.last;
        let hit = last.len() == host.len() + 1 + instance.len()
            && last.starts_with(host)
            && last[host.len()] == b'/'
            && last.ends_with(instance);
        if hit {
            return Some(self.nodes[*node as usize].queue);
        }
        self.key.clear();
        self.key.extend_from_slice(host);
        self.key.push(b'/');
        self.key.extend_from_slice(instance);
        let node = match self.by_name.get(self.key.as_slice()) {
            Some(node) => *node,
            None => self.add(host, instance)?,
        };
        self.last.0.clone_from(&self.key);
        self.last.1 = node;
        Some(self.nodes[node as usize].queue)
    }

    fn add(&mut self, host: &[u8], instance: &[u8]) -> Option<u32> {
        if self.nodes.len() >= NODES_MAX {
            return None;
        }
        let number = self.nodes.len() as u32;
        let host: Box<str> = String::from_utf8_lossy(host).into();
        self.hosts.insert(host.to_ascii_lowercase().into());
        let (queue_seen, hands_over, delivers) = (false, false, false);
        let (name, instance) = (host.clone(), String::from_utf8_lossy(instance).into());
        self.nodes.push(Node { host, instance, name, queue_seen, hands_over, delivers, queue: number });
        self.by_name.insert(self.key.as_slice().into(), number);
        Some(number)
    }

    /// A queue manager or cleanup logged under this name. A second queue on the host is a second instance, and their
    /// names have to tell them apart from then on.
    pub(super) fn queue_seen(&mut self, node: u32) {
        let seen = &mut self.nodes[node as usize].queue_seen;
        if std::mem::replace(seen, true) {
            return;
        }
        let host = self.get(node).host.clone();
        let queues = self.nodes.iter_mut().filter(|n| n.host == host && n.queue_seen);
        let mut queues: Vec<_> = queues.collect();
        if queues.len() < 2 {
            return;
        }
        for n in queues.iter_mut().filter(|n| !matches!(&*n.instance, "postfix" | "")) {
            n.name = format!("{host}/{}", n.instance).into();
        }
    }

    /// From now on lines of `name` belong to the queue of `queue`.
    pub(super) fn alias(&mut self, name: u32, queue: u32) {
        for node in &mut self.nodes {
            if node.queue == name {
                node.queue = queue;
            }
        }
    }

    /// Whether a relay as logged (`name[address]:port`) is surely one of ours: the loopback, configured, a host of
    /// these logs by its whole name, or learned from a hand-over whose other half was found.
    pub(super) fn is_own(&self, relay: &[u8]) -> bool {
        let Some(peer) = Peer::of(relay) else { return false };
        if peer.is_loopback() {
            return true;
        }
        if !self.learned.is_empty() && (self.learned.contains(peer.address) || self.learned.contains(peer.name)) {
            return true;
        }
        let Ok(name) = std::str::from_utf8(peer.name) else { return false };
        let known = |name: &str| {
            let label = name.split('.').next().unwrap_or(name);
            let short = if label == name { &self.configured_labels } else { &self.configured };
            self.hosts.contains(name) || self.configured.contains(name) || short.contains(label)
        };
        let lower = name.bytes().any(|b| b.is_ascii_uppercase()).then(|| name.to_ascii_lowercase());
        known(lower.as_deref().unwrap_or(name))
            || std::str::from_utf8(peer.address).is_ok_and(|address| self.configured.contains(address))
    }

    /// Whether `relay`, as logged by `from`, can be the host of `node`: 2 by its whole name or the loopback, 1 by the
    /// first label, 0 if nothing says so.
    pub(super) fn likeness(&self, relay: &[u8], from: u32, node: u32) -> u8 {
        let Some(peer) = Peer::of(relay) else { return 0 };
        let host = &self.get(node).host;
        if peer.is_loopback() {
            return if self.get(from).host == *host { 2 } else { 0 };
        }
        if peer.name.eq_ignore_ascii_case(host.as_bytes()) {
            return 2;
        }
        let (a, b) = (first_label(peer.name), first_label(host.as_bytes()));
        let unqualified = a.len() == peer.name.len() || b.len() == host.len();
        u8::from(unqualified && a.eq_ignore_ascii_case(b))
    }

    /// The relay of an outcome: the host, where it talked to the outside itself or is not known to leave that to
    /// others.
    pub(super) fn outcome_relay(&self, node: u32, relay: &[u8]) -> Option<&str> {
        let node = self.get(node);
        let outside = if is_remote(relay) { !self.is_own(relay) } else { !node.hands_over };
        outside.then_some(&*node.name)
    }

    /// What the host calls itself.
    pub(super) fn host(&self, node: u32) -> Option<&str> {
        Some(&*self.get(node).name).filter(|name| !name.is_empty())
    }

    /// The relay of a send, as far as is known when it is taken.
    pub(super) fn send_relay(&self, node: u32) -> Option<&str> {
        let node = self.get(node);
        let outside = !node.hands_over && (node.delivers || self.configured.is_empty());
        outside.then_some(&*node.name)
    }

    /// A message handed over to `relay` was found on a host of these logs.
    pub(super) fn learn(&mut self, relay: &[u8]) {
        let Some(peer) = Peer::of(relay) else { return };
        let key = if peer.address.is_empty() { peer.name } else { peer.address };
        if !peer.is_loopback() && self.learned.len() < LEARNED_MAX && !self.learned.contains(key) {
            self.learned.insert(key.into());
        }
    }
}

/// The other side of a delivery over a network.
#[derive(Debug, Clone, Copy)]
struct Peer<'a> {
    name: &'a [u8],
    address: &'a [u8],
}

impl<'a> Peer<'a> {
    /// `None` for `none`, `local`, `virtual`, a pipe's name, and sockets of this host.
    fn of(relay: &'a [u8]) -> Option<Self> {
        let open = memchr::memchr(b'[', relay)?;
        let address = super::line::address(relay);
        (!address.contains(&b'/')).then_some(Self { name: &relay[..open], address })
    }

    fn is_loopback(self) -> bool {
        self.address.starts_with(b"127.") || self.address == b"::1" || self.name.eq_ignore_ascii_case(b"localhost")
    }
}

/// Whether the delivery went over a network, be it to an own host.
pub(super) fn is_remote(relay: &[u8]) -> bool {
    Peer::of(relay).is_some()
}

fn first_label(name: &[u8]) -> &[u8] {
    &name[..memchr::memchr(b'.', name).unwrap_or(name.len())]
}
