//! The classifier against a list of rules that is searched from its start.

use super::*;
use crate::model::key::KEY_WORDS;
use proptest::prelude::*;
use std::collections::HashMap;

/// A group as the documents describe it.
struct Model {
    order: Order,
    duplicates: Duplicates,
    matchers: Vec<ModelMatcher>,
}

struct ModelMatcher {
    id: MatcherId,
    priority: u32,
    mask: Key,
    held: bool,
    /// In the order of their insertion.
    rules: Vec<(Key, RuleId)>,
}

impl Model {
    /// Adds a matcher before the first that it precedes.
    fn add(&mut self, id: MatcherId, priority: u32, mask: Key, held: bool) {
        let precedes = |other: &ModelMatcher| match self.order {
            Order::NewestFirst => priority <= other.priority,
            Order::OldestFirst => priority < other.priority,
        };
        let place = self.matchers.iter().position(precedes).unwrap_or(self.matchers.len());
        self.matchers.insert(place, ModelMatcher { id, priority, mask, held, rules: Vec::new() });
    }

    fn matcher(&mut self, id: MatcherId) -> &mut ModelMatcher {
        self.matchers.iter_mut().find(|matcher| matcher.id == id).expect("a matcher the model has")
    }

    fn lookup(&self, key: &Key) -> Option<RuleId> {
        self.matchers.iter().find_map(|matcher| {
            let wanted = and(key, &matcher.mask);
            let mut matching = matcher.rules.iter().filter(|(value, _)| *value == wanted);
            let winner = match self.duplicates {
                Duplicates::NewWins => matching.next_back(),
                _ => matching.next(),
            };
            winner.map(|&(_, rule)| rule)
        })
    }
}

fn and(key: &Key, mask: &Key) -> Key {
    Key { words: std::array::from_fn(|n| key.words[n] & mask.words[n]) }
}

/// Both, side by side.
struct Pair {
    classifier: Classifier,
    model: Model,
    rules_made: u32,
}

impl Pair {
    fn new(order: Order, duplicates: Duplicates) -> Pair {
        let model = Model { order, duplicates, matchers: Vec::new() };
        Pair { classifier: Classifier::new(3, order, duplicates), model, rules_made: 0 }
    }

    fn insert(&mut self, priority: u32, mask: &Key, value: &Key) {
        let id = self.classifier.matcher(priority, mask);
        let shared = |m: &&ModelMatcher| !m.held && m.priority == priority && m.mask == *mask;
        match self.model.matchers.iter().find(shared) {
            Some(found) => assert_eq!(id, found.id),
            None => self.model.add(id, priority, *mask, false),
        }
        self.insert_into(id, value);
    }

    fn insert_into(&mut self, id: MatcherId, value: &Key) {
        self.rules_made += 1;
        let rule = RuleId(self.rules_made);
        let refuse = self.model.duplicates == Duplicates::Refuse;
        let matcher = self.model.matcher(id);
        let masked = and(value, &matcher.mask);
        let duplicate = matcher.rules.iter().any(|(other, _)| *other == masked);
        let result = self.classifier.insert(id, value, rule);
        if duplicate && refuse {
            assert_eq!(result.map_err(|refusal| refusal.errno), Err(Errno::Exist));
        } else {
            assert_eq!(result, Ok(()));
            matcher.rules.push((masked, rule));
        }
    }

    /// Removes the rule with this number among all, modulo their number.
    fn remove(&mut self, nth: usize) {
        let total: usize = self.model.matchers.iter().map(|matcher| matcher.rules.len()).sum();
        let Some(mut left) = nth.checked_rem(total) else { return };
        let mut place = 0;
        while left >= self.model.matchers[place].rules.len() {
            left -= self.model.matchers[place].rules.len();
            place += 1;
        }
        let matcher = &mut self.model.matchers[place];
        let (value, rule) = matcher.rules.remove(left);
        assert!(!self.classifier.remove(matcher.id, &value, RuleId(u32::MAX)), "a rule that is not there");
        assert!(self.classifier.remove(matcher.id, &value, rule));
        assert!(!self.classifier.remove(matcher.id, &value, rule), "a rule is removed once");
        if matcher.rules.is_empty() && !matcher.held {
            let gone = self.model.matchers.remove(place);
            let late = self.classifier.insert(gone.id, &value, rule);
            assert_eq!(late.map_err(|refusal| refusal.errno), Err(Errno::Noent));
        }
    }

    fn hold(&mut self, priority: u32, mask: &Key) {
        let id = self.classifier.hold(priority, mask, 5);
        self.model.add(id, priority, *mask, true);
    }

    fn release(&mut self, nth: usize) {
        let Some(place) = nth.checked_rem(self.model.matchers.len()) else { return };
        let matcher = &self.model.matchers[place];
        let may = matcher.held && matcher.rules.is_empty();
        assert_eq!(self.classifier.release(matcher.id), may);
        if may {
            self.model.matchers.remove(place);
        }
    }

    fn check(&self, keys: &[Key]) {
        let expected: Vec<_> = keys.iter().map(|key| self.model.lookup(key)).collect();
        let found: Vec<_> = keys.iter().map(|key| self.classifier.lookup(key)).collect();
        assert_eq!(found, expected);
        let mut hits = vec![Some(RuleId(99)); keys.len()];
        self.classifier.lookup_burst(&keys.iter().collect::<Vec<_>>(), &mut hits);
        assert_eq!(hits, expected);
        let shown: Vec<_> = self
            .classifier
            .matchers()
            .map(|m| (m.id, m.priority, *m.mask, m.rules as usize, m.held))
            .collect();
        let expected = self.model.matchers.iter();
        let expected: Vec<_> = expected.map(|m| (m.id, m.priority, m.mask, m.rules.len(), m.held)).collect();
        assert_eq!(shown, expected);
        assert_eq!(self.classifier.len(), self.model.matchers.iter().map(|m| m.rules.len()).sum::<usize>());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { priority: u32, mask: usize, value: Key },
    InsertHeld { nth: usize, value: Key },
    Remove { nth: usize },
    Hold { priority: u32, mask: usize },
    Release { nth: usize },
    Look { keys: Vec<Key> },
}

/// Few words with few values, so that rules overlap and repeat.
fn key() -> impl Strategy<Value = Key> {
    let words = [0, 1, 5, 11, 23];
    prop::array::uniform5(0..3u64).prop_map(move |values| {
        let mut key = Key { words: [1; KEY_WORDS] };
        for (word, value) in words.into_iter().zip(values) {
            key.words[word] = value | value << 62;
        }
        key
    })
}

/// None of a key's bits, a few, or some in every word.
fn mask() -> impl Strategy<Value = Key> {
    let bits = prop_oneof![4 => Just(0u64), 1 => Just(1), 1 => Just(2 << 62), 2 => Just(u64::MAX)];
    let few = prop::collection::vec(bits, KEY_WORDS)
        .prop_map(|words| Key { words: words.try_into().expect("as many words as a key") });
    let nothing = Just(Key::default());
    let all = Just(Key { words: [1 | 1 << 63; KEY_WORDS] });
    let one = (0..6usize).prop_map(|word| {
        let mut key = Key::default();
        key.words[word] = u64::MAX;
        key
    });
    prop_oneof![4 => few, 1 => nothing, 1 => all, 2 => one]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3u32, any::<usize>(), key())
            .prop_map(|(priority, mask, value)| Step::Insert { priority, mask, value }),
        4 => (any::<usize>(), key()).prop_map(|(nth, value)| Step::InsertHeld { nth, value }),
        12 => any::<usize>().prop_map(|nth| Step::Remove { nth }),
        1 => (0..3u32, any::<usize>()).prop_map(|(priority, mask)| Step::Hold { priority, mask }),
        2 => any::<usize>().prop_map(|nth| Step::Release { nth }),
        3 => prop::collection::vec(key(), 0..70).prop_map(|keys| Step::Look { keys }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn finds_what_a_search_from_the_start_finds(
        order in prop_oneof![Just(Order::NewestFirst), Just(Order::OldestFirst)],
        duplicates in prop_oneof![
            Just(Duplicates::OldWins), Just(Duplicates::NewWins), Just(Duplicates::Refuse)
        ],
        masks in prop::collection::vec(mask(), 1..5),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut pair = Pair::new(order, duplicates);
        for step in steps {
            match step {
                Step::Insert { priority, mask, value } => {
                    pair.insert(priority, &masks[mask % masks.len()], &value);
                }
                Step::InsertHeld { nth, value } => {
                    let held: Vec<_> =
                        pair.model.matchers.iter().filter(|m| m.held).map(|m| m.id).collect();
                    if let Some(place) = nth.checked_rem(held.len()) {
                        pair.insert_into(held[place], &value);
                    }
                }
                Step::Remove { nth } => pair.remove(nth),
                Step::Hold { priority, mask } => pair.hold(priority, &masks[mask % masks.len()]),
                Step::Release { nth } => pair.release(nth),
                Step::Look { keys } => pair.check(&keys),
            }
        }
        pair.check(&[Key::default(), Key { words: [1; KEY_WORDS] }]);
        while !pair.classifier.is_empty() {
            pair.remove(0);
        }
        pair.check(&[Key::default()]);
    }
}

/// Numbers in no order.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (((self.0 >> 32) * bound as u64) >> 32) as usize
    }
}

fn numbered(n: u64) -> Key {
    let mut key = Key::default();
    key.words[3] = n;
    key.words[4] = n << 40;
    key
}

/// Up to thousands of rules and down to none, several times; each state of growth in between is looked at.
#[test]
fn grows_and_shrinks_without_losing_a_rule() {
    let mask = Key { words: std::array::from_fn(|n| if n == 3 || n == 4 { u64::MAX } else { 0 }) };
    let mut classifier = Classifier::new(11, Order::NewestFirst, Duplicates::OldWins);
    let mut expected = HashMap::new();
    let mut live = Vec::new();
    let mut shuffle = Shuffle(5);
    let mut made = 0u32;
    for peak in [10_000, 300, 5_000] {
        while made < peak || !live.is_empty() {
            let rising = made < peak;
            if shuffle.below(10) < if rising { 8 } else { 2 } {
                let id = classifier.matcher(0, &mask);
                classifier.insert(id, &numbered(made.into()), RuleId(made)).expect("no duplicates");
                expected.insert(made, RuleId(made));
                live.push(made);
                made += 1;
            } else if !live.is_empty() {
                let gone = live.swap_remove(shuffle.below(live.len()));
                let id = classifier.matcher(0, &mask);
                assert!(classifier.remove(id, &numbered(gone.into()), RuleId(gone)));
                expected.remove(&gone);
            }
            if made == peak {
                check_all(&classifier, &expected, made);
            }
            let keys: [Key; 3] = std::array::from_fn(|_| numbered(shuffle.below(made as usize + 1) as u64));
            for key in keys {
                assert_eq!(classifier.lookup(&key), expected.get(&(key.words[3] as u32)).copied());
            }
        }
        check_all(&classifier, &expected, made);
        made = 0;
    }
}

fn check_all(classifier: &Classifier, expected: &HashMap<u32, RuleId>, made: u32) {
    assert_eq!(classifier.len(), expected.len());
    let keys: Vec<Key> = (0..made).map(|n| numbered(n.into())).collect();
    let mut hits = vec![None; keys.len()];
    classifier.lookup_burst(&keys.iter().collect::<Vec<_>>(), &mut hits);
    for (n, hit) in hits.into_iter().enumerate() {
        assert_eq!(hit, expected.get(&(n as u32)).copied());
    }
}

/// A thousand rules of one value: none costs more than another, and they take over in turn.
#[test]
fn uncovers_many_duplicates_in_turn() {
    let mask = Key { words: [u64::MAX; KEY_WORDS] };
    let value = numbered(1);
    for (duplicates, newest_first) in [(Duplicates::OldWins, false), (Duplicates::NewWins, true)] {
        let mut classifier = Classifier::new(11, Order::NewestFirst, duplicates);
        let id = classifier.matcher(0, &mask);
        for n in 0..1000 {
            classifier.insert(id, &value, RuleId(n)).expect("duplicates are allowed");
        }
        // Every third goes before its turn.
        for n in (0..1000).step_by(3) {
            assert!(classifier.remove(id, &value, RuleId(n)));
        }
        let mut left: Vec<u32> = (0..1000).filter(|n| n % 3 != 0).collect();
        if newest_first {
            left.reverse();
        }
        for n in left {
            assert_eq!(classifier.lookup(&value), Some(RuleId(n)));
            assert!(classifier.remove(id, &value, RuleId(n)));
        }
        assert_eq!(classifier.lookup(&value), None);
        assert_eq!(classifier.matchers().count(), 0);
    }
}

#[test]
fn ignores_what_is_beyond_the_shorter_slice() {
    let mut classifier = Classifier::new(1, Order::NewestFirst, Duplicates::OldWins);
    let id = classifier.matcher(0, &Key::default());
    classifier.insert(id, &Key::default(), RuleId(4)).expect("the first");
    let key = Key::default();
    let mut hits = [None; 3];
    classifier.lookup_burst(&[&key; 2], &mut hits);
    assert_eq!(hits, [Some(RuleId(4)), Some(RuleId(4)), None]);
    classifier.lookup_burst(&[&key; 40], &mut hits);
    assert_eq!(hits, [Some(RuleId(4)); 3]);
}
