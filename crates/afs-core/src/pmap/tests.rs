//! The tree against `BTreeMap`: random histories over several maps that are clones of each other.

use super::*;
use std::collections::BTreeMap;

/// A small generator, so that a failure is reproduced by its seed alone.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

type Pair = (PMap<u32, u64>, BTreeMap<u32, u64>);

fn check_shape(map: &PMap<u32, u64>) {
    fn walk(node: &Node<u32, u64>, root: bool, low: Option<u32>, high: Option<u32>) -> (usize, usize) {
        assert!(node.len() <= FAN && (root || node.len() >= MIN), "{} items", node.len());
        match node {
            Node::Leaf(entries) => {
                assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
                let inside = |k: u32| low.is_none_or(|l| l <= k) && high.is_none_or(|h| k < h);
                assert!(entries.iter().all(|e| inside(e.0)));
                (1, entries.len())
            }
            Node::Inner(children) => {
                assert!(children.len() > 1);
                let mut total = (None, 0);
                for (i, child) in children.iter().enumerate() {
                    let from = if i == 0 { low } else { Some(child.key) };
                    let to = children.get(i + 1).map_or(high, |next| Some(next.key));
                    let (height, len) = walk(&child.node, false, from, to);
                    assert!(total.0.is_none_or(|h| h == height), "leaves at different depths");
                    total = (Some(height), total.1 + len);
                }
                (total.0.unwrap() + 1, total.1)
            }
        }
    }
    assert_eq!(walk(&map.root, true, None, None).1, map.len());
}

fn check_same((map, model): &Pair) {
    check_shape(map);
    assert!(map.iter().eq(model.iter()));
}

fn check_range(dice: &mut Dice, (map, model): &Pair, keys: u64) {
    let (a, b) = (dice.below(keys) as u32, dice.below(keys) as u32);
    let (from, to) = (a.min(b), a.max(b));
    assert!(map.range(from..to).eq(model.range(from..to)));
    assert!(map.range(from..=to).eq(model.range(from..=to)));
    assert!(map.range(..to).eq(model.range(..to)));
    if from < to {
        let bounds = (Bound::Excluded(from), Bound::Included(to));
        assert!(map.range(bounds).eq(model.range(bounds)));
        assert_eq!(map.range(to..from).count(), 0);
    }
    let few: Vec<_> = map.range(a..).take(3).collect();
    assert_eq!(few, model.range(a..).take(3).collect::<Vec<_>>());
    assert_eq!(map.floor(&a), model.range(..=a).next_back());
    assert_eq!(map.below(&a), model.range(..a).next_back());
    assert_eq!(map.first(), model.first_key_value());
    assert_eq!(map.last(), model.last_key_value());
}

fn check_diff(a: &Pair, b: &Pair) {
    let mut before = None;
    let mut found = BTreeMap::new();
    for (key, old, new) in a.0.diff(&b.0) {
        assert!(before < Some(*key), "out of order");
        before = Some(*key);
        assert_eq!((old, new), (a.1.get(key), b.1.get(key)));
        if old != new {
            found.insert(*key, (old.copied(), new.copied()));
        }
    }
    let keys = a.1.keys().chain(b.1.keys());
    let differs = |k: &u32| a.1.get(k) != b.1.get(k);
    let want: BTreeMap<_, _> =
        keys.filter(|k| differs(k)).map(|k| (*k, (a.1.get(k).copied(), b.1.get(k).copied()))).collect();
    assert_eq!(found, want);
}

fn one_op(dice: &mut Dice, maps: &mut Vec<Pair>, keys: u64, grow: u64) {
    let at = dice.below(maps.len() as u64) as usize;
    let key = dice.below(keys) as u32;
    let (map, model) = &mut maps[at];
    match dice.below(100) {
        n if n < grow => {
            let value = dice.next();
            assert_eq!(map.insert(key, value), model.insert(key, value));
        }
        n if n < 90 => assert_eq!(map.remove(&key), model.remove(&key)),
        n if n < 93 => {
            assert_eq!(map.get(&key), model.get(&key));
            if let Some(value) = map.get_mut(&key) {
                *value += 1;
                *model.get_mut(&key).unwrap() += 1;
            }
        }
        n if n < 96 => check_range(dice, &maps[at], keys),
        n if n < 98 => {
            let copy = maps[at].clone();
            assert!(copy.0.ptr_eq(&maps[at].0));
            if maps.len() < 6 {
                maps.push(copy);
            } else {
                let to = dice.below(6) as usize;
                maps[to] = copy;
            }
        }
        _ => {
            let other = dice.below(maps.len() as u64) as usize;
            check_diff(&maps[at], &maps[other]);
        }
    }
}

fn history(seed: u64, steps: u64) {
    let mut dice = Dice(seed);
    // From maps of a few entries, where every operation splits or merges, to some thousands.
    let keys = 1 << (2 + seed % 12);
    let mut maps: Vec<Pair> = vec![(PMap::new(), BTreeMap::new())];
    for step in 0..steps {
        // Tides: grow, then shrink to almost nothing.
        let grow = if (step / (steps / 5 + 1)).is_multiple_of(2) { 65 } else { 25 };
        one_op(&mut dice, &mut maps, keys, grow);
        if step % 512 == 0 {
            maps.iter().for_each(check_same);
        }
    }
    maps.iter().for_each(check_same);
}

#[test]
fn behaves_like_btreemap() {
    for seed in 0..240 {
        let run = std::panic::catch_unwind(|| history(seed, 2_500));
        assert!(run.is_ok(), "seed {seed}");
    }
}

#[test]
fn sorted_input_builds_the_same_map() {
    for len in (0..600).chain([4_095, 4_096, 4_097, 70_000]) {
        let entries: Vec<(u32, u64)> = (0..len).map(|i| (i * 3, u64::from(i))).collect();
        let map: PMap<_, _> = entries.iter().copied().collect();
        check_same(&(map.clone(), entries.iter().copied().collect()));
        let shuffled: PMap<_, _> = entries.iter().rev().copied().collect();
        assert_eq!(map, shuffled);
    }
}

#[test]
fn ascending_and_descending_input_keep_their_shape() {
    for reverse in [false, true] {
        let mut pair: Pair = Default::default();
        for i in 0..20_000u32 {
            let key = if reverse { 20_000 - i } else { i };
            pair.0.insert(key, 1);
            pair.1.insert(key, 1);
        }
        check_same(&pair);
    }
}

#[test]
fn a_write_to_a_clone_is_not_seen() {
    let mut map: PMap<u32, u64> = (0..1_000).map(|i| (i, 0)).collect();
    let before = map.clone();
    for i in 0..1_000 {
        *map.get_mut(&i).unwrap() = 1;
    }
    map.remove(&5);
    assert!(before.iter().all(|(_, v)| *v == 0));
    assert_eq!((before.len(), map.len()), (1_000, 999));
}

#[test]
fn a_miss_copies_nothing() {
    let mut map: PMap<u32, u64> = (0..1_000).map(|i| (i * 2, 0)).collect();
    let before = map.clone();
    assert_eq!(map.remove(&7), None);
    assert_eq!(map.get_mut(&7), None);
    assert!(map.ptr_eq(&before));
}

#[test]
fn small_maps_are_small() {
    let mut map: PMap<(u64, u64), (u64, u64)> = PMap::new();
    assert_eq!(map.heap_bytes(), 0);
    map.insert((1, 1), (1, 1));
    assert_eq!(map.heap_bytes(), 48);
}

/// Shared nodes are stepped over: the diff of two clones looks at few entries, whatever their size.
#[test]
fn diff_prunes() {
    let map: PMap<u32, u64> = (0..1_000_000).map(|i| (i, 0)).collect();
    for changes in [0, 1, 10, 100] {
        let mut other = map.clone();
        for i in 0..changes {
            other.insert(i * 9_973, 1);
            other.remove(&(i * 9_973 + 500));
        }
        let seen = map.diff(&other).count();
        assert!(seen <= 2 * FAN * 3 * changes as usize, "{changes} changes, {seen} entries seen");
        assert_eq!(map.diff(&other).filter(|(_, a, b)| a != b).count(), 2 * changes as usize);
    }
    assert_eq!(map.diff(&PMap::new()).count(), map.len());
    assert_eq!(PMap::new().diff(&map).count(), map.len());
}

#[test]
fn values_are_dropped_once() {
    let token = Arc::new(());
    let mut map: PMap<u32, Arc<()>> = PMap::new();
    for i in 0..2_000 {
        map.insert(i * 7 % 2_000, token.clone());
    }
    let copy = map.clone();
    for i in 0..1_500 {
        map.remove(&i);
    }
    drop(map);
    assert_eq!(copy.len(), 2_000);
    drop(copy);
    assert_eq!(Arc::strong_count(&token), 1);
}
