//! File operations and their answers as plain data, the same for the model and for what is compared with it.
//!
//! Nodes are numbers: the model's own in the model, inode numbers in the subject. The runner translates.

use std::fmt;

/// A node: the model's number, or an inode number.
pub type Node = u64;
/// A file name, any bytes.
pub type Name = Vec<u8>;
/// The names of a path from the root; none is the root.
pub type Path = Vec<Name>;

/// What `rename` does when the target exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameHow {
    /// Replace it.
    Replace,
    /// Refuse.
    NoReplace,
    /// Swap the two.
    Exchange,
}

/// Attributes to set; absent ones stay.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[allow(missing_docs, reason = "the fields of stat")]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime_ns: Option<i64>,
    pub mtime_ns: Option<i64>,
}

/// What `stat` shows and all sides must agree on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the fields of stat")]
pub struct Attr {
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Means nothing for directories.
    pub size: u64,
    pub atime_ns: i64,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
}

/// One operation on the files of one session.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the arguments are those of the system calls")]
pub enum Call {
    Lookup {
        dir: Node,
        name: Name,
    },
    GetAttr {
        node: Node,
    },
    ReadLink {
        node: Node,
    },
    /// The whole directory, without `.` and `..`; the adapter pages as it likes and sorts by name.
    ReadDir {
        dir: Node,
    },
    /// A regular file, fifo, socket or device: `mode` has the type. Refused when the name is taken.
    Create {
        dir: Node,
        name: Name,
        mode: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
    },
    MakeDir {
        dir: Node,
        name: Name,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Symlink {
        dir: Node,
        name: Name,
        target: Vec<u8>,
        uid: u32,
        gid: u32,
    },
    Link {
        node: Node,
        dir: Node,
        name: Name,
    },
    Unlink {
        dir: Node,
        name: Name,
    },
    RemoveDir {
        dir: Node,
        name: Name,
    },
    Rename {
        dir: Node,
        name: Name,
        to_dir: Node,
        to_name: Name,
        how: RenameHow,
    },
    SetAttr {
        node: Node,
        set: SetAttr,
    },
    Write {
        node: Node,
        offset: u64,
        bytes: Vec<u8>,
    },
    Append {
        node: Node,
        bytes: Vec<u8>,
    },
    Read {
        node: Node,
        offset: u64,
        len: usize,
    },
    /// Zeros inside the file; the size stays.
    Punch {
        node: Node,
        offset: u64,
        len: u64,
    },
    /// Answers [`Answer::Count`]. Never generated for overlapping ranges of one file.
    CopyRange {
        node: Node,
        offset: u64,
        to: Node,
        to_offset: u64,
        len: u64,
    },
    /// `must`: the attribute must be there (true) or not (false).
    SetXattr {
        node: Node,
        name: Name,
        value: Vec<u8>,
        must: Option<bool>,
    },
    GetXattr {
        node: Node,
        name: Name,
    },
    /// Names, sorted.
    ListXattr {
        node: Node,
    },
    RemoveXattr {
        node: Node,
        name: Name,
    },
    /// Keeps the node alive without a name until released as often as opened.
    Open {
        node: Node,
    },
    Release {
        node: Node,
    },
    /// Symbolic links are followed on the way, and at the end if `follow`.
    Resolve {
        path: Path,
        follow: bool,
    },
    /// The whole content of a file, which is made if it is not there.
    WriteAt {
        path: Path,
        bytes: Vec<u8>,
        parents: bool,
    },
    MakeDirAt {
        path: Path,
        parents: bool,
    },
    MoveAt {
        path: Path,
        to: Path,
        overwrite: bool,
    },
    RemoveAt {
        path: Path,
        recursive: bool,
    },
}

impl Call {
    /// The name of the operation, for statistics.
    pub fn kind(&self) -> String {
        first_word(self)
    }

    /// All nodes that it names.
    pub fn nodes_mut(&mut self) -> Vec<&mut Node> {
        match self {
            Self::Lookup { dir, .. }
            | Self::ReadDir { dir }
            | Self::Create { dir, .. }
            | Self::MakeDir { dir, .. }
            | Self::Symlink { dir, .. }
            | Self::Unlink { dir, .. }
            | Self::RemoveDir { dir, .. } => vec![dir],
            Self::GetAttr { node }
            | Self::ReadLink { node }
            | Self::SetAttr { node, .. }
            | Self::Write { node, .. }
            | Self::Append { node, .. }
            | Self::Read { node, .. }
            | Self::Punch { node, .. }
            | Self::SetXattr { node, .. }
            | Self::GetXattr { node, .. }
            | Self::ListXattr { node }
            | Self::RemoveXattr { node, .. }
            | Self::Open { node }
            | Self::Release { node } => vec![node],
            Self::Link { node, dir, .. } => vec![node, dir],
            Self::Rename { dir, to_dir, .. } => vec![dir, to_dir],
            Self::CopyRange { node, to, .. } => vec![node, to],
            Self::Resolve { .. }
            | Self::WriteAt { .. }
            | Self::MakeDirAt { .. }
            | Self::MoveAt { .. }
            | Self::RemoveAt { .. } => Vec::new(),
        }
    }
}

/// The name of an enum's variant. Stops before the fields, which may be long.
pub(crate) fn first_word(value: &impl fmt::Debug) -> String {
    struct UntilSpace(String);
    impl fmt::Write for UntilSpace {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let word = text.split(' ').next().unwrap_or_default();
            self.0.push_str(word);
            if word.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }
    let mut out = UntilSpace(String::new());
    // The error is how it stops.
    let _ = fmt::write(&mut out, format_args!("{value:?}"));
    out.0
}

/// What an operation answers when it succeeds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing more than that.
    Done,
    /// A node with its attributes after the operation: `Lookup`, `GetAttr`, `Create`, `MakeDir`, `Symlink`, `Link`,
    /// `SetAttr`, `Write`, `Append`, `Punch`, `Resolve`, `WriteAt`, `MakeDirAt`, `MoveAt`.
    Node(Node, Attr),
    /// `Read`, `ReadLink`, `GetXattr`.
    Bytes(Vec<u8>),
    /// `ReadDir`.
    Entries(Vec<(Name, Node)>),
    /// `ListXattr`.
    Names(Vec<Name>),
    /// `CopyRange`.
    Count(u64),
}
