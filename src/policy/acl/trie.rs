//! Patterns of paths, by segment; each with the number of its rule.
//!
//! 1. What is found is what daprd's trie finds, which looks at siblings in the order in which they
//!    were written and takes the first that matches.
//! 2. For each segment of a path, down to where the patterns end, looking costs a binary search
//!    among the siblings and a comparison with each of those that have a wildcard.
//!
//! Source: Dapr's `pkg/config/acl_trie.go`.

/// Any segment, if it is the path's last.
const ANY_LAST: &[u8] = b"*";
/// Whatever is left of the path.
const ANY_REST: &[u8] = b"**";

/// See the file's text.
#[derive(Debug)]
pub struct Trie {
    /// The first one is the root. Who was written later has a higher index.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    segment: Box<[u8]>,
    rule: Option<u32>,
    /// Children, sorted by their segments.
    children: Vec<u32>,
    /// Those of them that have a wildcard, as they were written.
    wild: Vec<u32>,
}

impl Default for Trie {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Trie {
    /// Of a pattern that is there already, the first rule stays.
    pub fn insert(&mut self, pattern: &[u8], rule: u32) {
        let mut at = 0;
        for segment in segments(pattern) {
            at = match self.place(at, segment) {
                Ok(child) => child,
                Err(place) => self.add(at, place, segment),
            };
        }
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.rule = node.rule.or(Some(rule));
        }
    }

    /// The rule of the pattern that holds for a path.
    pub fn find(&self, path: &[u8]) -> Option<u32> {
        let mut at = 0;
        let mut segments = segments(path).peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            at = self.matching(at, segment, last)?;
            let node = self.node(at)?;
            match node.rule {
                // A literal `*` in the path is the only way here.
                Some(_) if !last && *node.segment == *ANY_LAST => {}
                Some(rule) => return Some(rule),
                // `/pkg.Svc/*` holds for `/pkg.Svc`, too.
                None if last => return self.node(self.matching(at, ANY_LAST, true)?)?.rule,
                None => {}
            }
        }
        None
    }

    /// The first child that matches, in the order of writing.
    fn matching(&self, parent: u32, segment: &[u8], last: bool) -> Option<u32> {
        let same = self.place(parent, segment).ok();
        for &child in &self.node(parent)?.wild {
            if same.is_some_and(|same| same <= child) {
                break;
            }
            match &*self.node(child)?.segment {
                ANY_LAST if last => return Some(child),
                ANY_LAST => {}
                ANY_REST => return Some(child),
                pattern if is_match(segment, pattern) => return Some(child),
                _ => {}
            }
        }
        same
    }

    /// The child with this very segment, or where it would be.
    fn place(&self, parent: u32, segment: &[u8]) -> Result<u32, usize> {
        let children = self.node(parent).map_or(&[][..], |node| &node.children);
        let of = |child: &u32| self.node(*child).map_or(&[][..], |node| &node.segment);
        let place = children.binary_search_by(|child| of(child).cmp(segment))?;
        children.get(place).copied().ok_or(place)
    }

    fn add(&mut self, parent: u32, place: usize, segment: &[u8]) -> u32 {
        let child = self.nodes.len() as u32;
        self.nodes.push(Node { segment: segment.into(), ..Node::default() });
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            parent.children.insert(place, child);
            if segment.contains(&b'*') {
                parent.wild.push(child);
            }
        }
        child
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }
}

/// What the slashes part, after the first one.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.strip_prefix(b"/").unwrap_or(path).split(|octet| *octet == b'/')
}

/// `*` stands for any octets, and for none.
fn is_match(segment: &[u8], pattern: &[u8]) -> bool {
    let mut parts = pattern.split(|octet| *octet == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(rest) = segment.strip_prefix(first) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    let Some(mut rest) = rest.strip_suffix(end) else { return false };
    for part in parts.filter(|part| !part.is_empty()) {
        let Some(at) = rest.windows(part.len()).position(|octets| octets == part) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}
