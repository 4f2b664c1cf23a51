//! Writes a numbered tree in the layout of [`super::super::format`].

use super::super::NodeKind;
use super::super::format::{
    Counts, HAS_OIDS, HEADER_BYTES, Header, LINE_BYTES, Layout, MAGIC, RawAlias, RawAttr, RawClass, RawRow,
    SUMMED_FROM, VERSION, sum,
};
use super::super::lines::{self, Columns, lines_for};
use super::{BaseBuilder, Node, Numbers};
use bytemuck::Zeroable;

/// Sections behind the entries, filled while the entries are written, in order of first use.
struct Sections<'a> {
    builder: &'a BaseBuilder,
    numbers: &'a Numbers,
    /// Offset of each name that is written.
    name_at: Vec<Option<u32>>,
    names: Vec<u8>,
    blob_row: Vec<Option<u32>>,
    blobs: Vec<u32>,
    /// Contents that are git ids of directories: their rows come behind those of all blobs.
    oid_row: Vec<Option<u32>>,
    oids: Vec<u32>,
    class_row: Vec<Option<u32>>,
    classes: Vec<u32>,
    aliases: Vec<(u32, u32)>,
    next_child: u32,
}

pub(super) fn table(builder: &BaseBuilder, numbers: &Numbers) -> Vec<u8> {
    let rows = numbers.order.len();
    let lines = lines_for(rows as u64 - 1) as usize;
    let contents = &builder.contents.rows;
    let room = HEADER_BYTES
        + rows * 49
        + contents.len() * 52
        + lines * (LINE_BYTES + 4)
        + builder.names.bytes.len()
        + 4096;
    let mut out = Vec::with_capacity(room);
    out.resize(HEADER_BYTES + lines * LINE_BYTES, 0);
    let mut sections = Sections::new(builder, numbers);
    let columns = entries(&mut sections, rows, &mut out);
    for row in &sections.blobs {
        out.extend_from_slice(&contents[*row as usize].0);
    }
    out.extend_from_slice(bytemuck::cast_slice(&columns.tags));
    out.extend_from_slice(bytemuck::cast_slice(&columns.starts));
    let has_oids = contents.iter().any(|(_, oid)| *oid != [0; 20]);
    if has_oids {
        for row in sections.blobs.iter().chain(&sections.oids) {
            out.extend_from_slice(&contents[*row as usize].1);
        }
    }
    for row in &sections.classes {
        let [mode, uid, gid] = builder.classes.rows[*row as usize];
        let class = RawClass { mode: mode.into(), uid: uid.into(), gid: gid.into() };
        out.extend_from_slice(bytemuck::bytes_of(&class));
    }
    sections.aliases.sort_unstable();
    for (target, position) in &sections.aliases {
        let alias = RawAlias { target: (*target).into(), position: (*position).into() };
        out.extend_from_slice(bytemuck::bytes_of(&alias));
    }
    out.extend_from_slice(&sections.names);
    let oids = if has_oids { sections.blobs.len() + sections.oids.len() } else { 0 };
    let counts = Counts {
        entries: rows as u64,
        oids: oids as u64,
        blobs: sections.blobs.len() as u64,
        classes: sections.classes.len() as u64,
        aliases: sections.aliases.len() as u64,
        lines: lines as u64,
        names: sections.names.len() as u64,
    };
    header(builder.seed, &counts, if has_oids { HAS_OIDS } else { 0 }, &mut out);
    out
}

/// Writes rows and attributes, and fills the lines, whose place is at the end of `out`.
fn entries(sections: &mut Sections<'_>, rows: usize, out: &mut Vec<u8>) -> Columns {
    let from = out.len();
    let blobs = sections.count_blobs();
    let mut attrs = Vec::with_capacity(rows);
    for place in 0..rows {
        let (row, attr) = sections.entry(place as u32, blobs);
        out.extend_from_slice(bytemuck::bytes_of(&row));
        attrs.push(attr);
    }
    let (before, rows) = out.split_at_mut(from);
    let key = &sections.builder.key;
    let columns = lines::write(key, bytemuck::cast_slice(rows), &sections.names, &mut before[HEADER_BYTES..]);
    out.extend_from_slice(bytemuck::cast_slice(&attrs));
    columns
}

fn header(seed: u64, counts: &Counts, flags: u32, out: &mut [u8]) {
    debug_assert_eq!(Layout::new(counts, VERSION).map(|layout| layout.length()), Some(out.len()));
    let mut header = Header {
        magic: MAGIC,
        version: VERSION.into(),
        flags: flags.into(),
        sum: [0; 32],
        length: (out.len() as u64).into(),
        seed: seed.into(),
        entries: counts.entries.into(),
        oids: counts.oids.into(),
        blobs: counts.blobs.into(),
        classes: counts.classes.into(),
        aliases: counts.aliases.into(),
        lines: counts.lines.into(),
        names: counts.names.into(),
        reserved: [0; 72],
    };
    out[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
    header.sum = sum(&out[SUMMED_FROM..]);
    out[..HEADER_BYTES].copy_from_slice(bytemuck::bytes_of(&header));
}

impl<'a> Sections<'a> {
    fn new(builder: &'a BaseBuilder, numbers: &'a Numbers) -> Self {
        let contents = builder.contents.rows.len();
        Self {
            builder,
            numbers,
            name_at: vec![None; builder.names.ends.len()],
            names: Vec::with_capacity(builder.names.bytes.len()),
            blob_row: vec![None; contents],
            blobs: Vec::new(),
            oid_row: vec![None; contents],
            oids: Vec::new(),
            class_row: vec![None; builder.classes.rows.len()],
            classes: Vec::new(),
            aliases: Vec::new(),
            next_child: 1,
        }
    }

    /// How many rows the blobs take, so that rows of directories can be numbered behind them in the same pass.
    fn count_blobs(&self) -> u32 {
        let mut used = vec![false; self.blob_row.len()];
        let files = self.builder.nodes.iter().filter(|node| !is_dir(node));
        files.filter_map(|node| node.content).for_each(|content| used[content as usize] = true);
        used.iter().filter(|used| **used).count() as u32
    }

    fn entry(&mut self, place: u32, blobs: u32) -> (RawRow, RawAttr) {
        let (builder, numbers) = (self.builder, self.numbers);
        let handle = numbers.order[place as usize];
        let named = &builder.nodes[handle as usize];
        let inode = if named.kind == NodeKind::HardLink { named.link } else { handle };
        let mut row = RawRow {
            name: self.name(named.name).into(),
            parent: numbers.position[named.parent as usize].into(),
            link: 0.into(),
            name_len: builder.names.get(named.name).len() as u8,
            kind: NodeKind::HardLink as u8,
            reserved: [0; 2],
        };
        let at = numbers.place(inode);
        if at == place {
            let attr = self.inode(&mut row, inode, blobs);
            return (row, attr);
        }
        row.link = at.into();
        self.aliases.push((at, place));
        (row, RawAttr::zeroed())
    }

    fn inode(&mut self, row: &mut RawRow, inode: u32, blobs: u32) -> RawAttr {
        let node = &self.builder.nodes[inode as usize];
        let mut attr = RawAttr::zeroed();
        attr.size = node.size.into();
        attr.mtime_ns = node.mtime_ns.into();
        attr.class = first_use(node.class, &mut self.class_row, &mut self.classes).into();
        attr.nlink = (node.links + if is_dir(node) { 2 } else { 1 }).into();
        row.kind = node.kind as u8;
        row.link = node.link.into();
        if let Some(content) = node.content {
            let row = if is_dir(node) {
                blobs + first_use(content, &mut self.oid_row, &mut self.oids)
            } else {
                first_use(content, &mut self.blob_row, &mut self.blobs)
            };
            attr.content = (row + 1).into();
        }
        if node.kind == NodeKind::Dir {
            let count = self.numbers.children[inode as usize];
            row.link = self.next_child.into();
            attr.count = count.into();
            self.next_child += count;
        }
        attr
    }

    fn name(&mut self, id: u32) -> u32 {
        if let Some(at) = self.name_at[id as usize] {
            return at;
        }
        let at = self.names.len() as u32;
        self.names.extend_from_slice(self.builder.names.get(id));
        self.name_at[id as usize] = Some(at);
        at
    }
}

/// The row of a value in a column that holds values in order of first use.
fn first_use(id: u32, rows: &mut [Option<u32>], column: &mut Vec<u32>) -> u32 {
    *rows[id as usize].get_or_insert_with(|| {
        column.push(id);
        column.len() as u32 - 1
    })
}

fn is_dir(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Dir | NodeKind::Gitlink)
}
